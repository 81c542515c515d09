//! Settings: what the user wrote, and what the program runs on.
