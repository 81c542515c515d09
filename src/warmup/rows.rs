//! Which rows the warm-up trains on, and in which order.

use rand_chacha::rand_core::Rng;

use crate::pool::ExampleId;
use crate::seed::Seed;

/// Draws `n` of the examples `ids`; returns their positions, ascending.
///
/// Every example draws a number from a stream named by its id, and the `n`
/// smallest win. So the draw depends on content alone, and a pool that grew by
/// a hundredth changes about a hundredth of it.
pub fn choose(ids: &[ExampleId], n: usize, seed: Seed) -> Vec<usize> {
    let draw = |id: &ExampleId| seed.stream(&["warmup", "share", &id.to_string()]).next_u64();
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_cached_key(|&position| (draw(&ids[position]), ids[position]));
    order.truncate(n);
    order.sort_unstable();
    order
}

/// The order in which epoch number `epoch` visits `n` rows: a permutation.
pub fn epoch_order(n: usize, epoch: u32, seed: Seed) -> Vec<usize> {
    let mut rng = seed.stream(&["warmup", "order", &format!("epoch-{epoch}")]);
    let draws: Vec<u64> = (0..n).map(|_| rng.next_u64()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&row| (draws[row], row));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: u8) -> Vec<ExampleId> {
        (0..n).map(|byte| ExampleId([byte; 16])).collect()
    }

    fn chosen(ids: &[ExampleId], n: usize) -> Vec<ExampleId> {
        let mut chosen: Vec<_> =
            choose(ids, n, Seed(0)).into_iter().map(|position| ids[position]).collect();
        chosen.sort_unstable();
        chosen
    }

    #[test]
    fn the_order_of_the_pool_does_not_matter() {
        let forward = ids(100);
        let backward: Vec<_> = forward.iter().rev().copied().collect();
        assert_eq!(chosen(&forward, 10), chosen(&backward, 10));
        assert_eq!(chosen(&forward, 10).len(), 10);
        assert_ne!(choose(&forward, 10, Seed(0)), choose(&forward, 10, Seed(1)));
    }

    #[test]
    fn a_pool_that_grew_keeps_the_chosen_that_are_not_displaced() {
        let (before, after) = (chosen(&ids(100), 20), chosen(&ids(110), 20));
        let n_kept = before.iter().filter(|id| after.contains(id)).count();
        assert!(n_kept >= 16, "{n_kept} of 20");
    }

    #[test]
    fn every_epoch_visits_every_row_in_an_order_of_its_own() {
        let [first, second] = [1, 2].map(|epoch| epoch_order(50, epoch, Seed(0)));
        assert_ne!(first, second);
        for mut order in [first, second] {
            order.sort_unstable();
            assert_eq!(order, (0..50).collect::<Vec<_>>());
        }
    }
}
