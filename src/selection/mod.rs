//! From scores to the rows that are kept, and the dataset folder they become.
//!
//! A [`selector`] says in which order rows are to be taken; [`take`] takes
//! them until the budget is spent, past those that a limit refuses.

mod budget;
mod contamination;
pub mod export;
mod limits;
mod near_duplicates;
mod select;
mod selection_file;
pub mod selector;
mod settings;
mod stored_rows;
mod text_gate;
mod top;
#[cfg(test)]
mod toy;
mod view;
mod words;

pub use budget::{Budget, BudgetError, Fraction};
pub use contamination::{Contaminated, Contamination, EvaluationTexts, SharedRuns};
pub use export::Schema;
pub use limits::{Gate, Open, SourceLimits, Taken, take};
pub use near_duplicates::{SeenTexts, Shingles};
pub use select::{SelectFrom, UnknownName, select, select_for_target};
pub use selection_file::{SelectedRow, SelectionFile};
pub use selector::Selector;
pub use settings::SelectionSettings;
pub use stored_rows::StoredRows;
pub use text_gate::TextGate;
pub use top::{Selected, ranking, top};
pub use view::{Normalize, Ranked, View};
