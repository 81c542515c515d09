//! The best examples within a budget, and the dataset folder they become.

mod budget;
pub mod export;
mod top;

pub use budget::{Budget, BudgetError, Fraction};
pub use export::Schema;
pub use top::{Selected, ranking, top};
