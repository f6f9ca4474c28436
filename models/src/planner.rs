//! Choosing cuts.
//!
//! A problem is a row of stops `0..=last`: stop 0 is before the first node, the last stop behind the last node, and those
//! between are the legal cuts. A solution into `n` shards is `n - 1` of them.

/// What the planner needs to know of a model.
pub(crate) struct Problem<'a> {
    /// Number of the last stop.
    pub(crate) last: usize,
    /// Cost of the shard between two stops.
    pub(crate) cost: &'a dyn Fn(usize, usize) -> u64,
    /// A part of that cost that never shrinks when the shard grows.
    pub(crate) least: &'a dyn Fn(usize, usize) -> u64,
    /// The work between two stops, to be spread evenly.
    pub(crate) work: &'a dyn Fn(usize, usize) -> u64,
    /// What it costs to cut at a stop, compared in order: elements that cross, then 1 inside a layer.
    pub(crate) crossing: &'a dyn Fn(usize) -> (u64, u64),
}

/// Stops for `shards` shards, both ends included, such that the costliest shard is as cheap as possible, then the sum of
/// the crossings as small as possible, then the work spread as evenly as possible (least sum of squares). Exact; of equal
/// solutions always the same one. Takes O(shards * stops^2).
///
/// # Panics
/// When there are fewer stops than shards ask for.
pub(crate) fn balanced(problem: &Problem<'_>, shards: usize) -> Vec<usize> {
    assert!((1..=problem.last).contains(&shards), "callers check the count against the stops");
    let worst = smallest_worst(problem, shards);
    best_of(problem, shards, worst)
}

/// The least cost of the costliest shard.
fn smallest_worst(problem: &Problem<'_>, shards: usize) -> u64 {
    let mut best: Vec<u64> = (0..=problem.last).map(|stop| if stop == 0 { 0 } else { u64::MAX }).collect();
    for shard in 1..=shards {
        let mut next = vec![u64::MAX; problem.last + 1];
        for (to, reached) in next.iter_mut().enumerate().skip(shard) {
            for from in (shard - 1..to).rev() {
                if (problem.least)(from, to) >= *reached {
                    break;
                }
                if best[from] < *reached {
                    *reached = best[from].max((problem.cost)(from, to)).min(*reached);
                }
            }
        }
        best = next;
    }
    best[problem.last]
}

/// Of the solutions whose shards all cost at most `worst`, the one with the smallest crossings, then the most even one.
fn best_of(problem: &Problem<'_>, shards: usize, worst: u64) -> Vec<usize> {
    type Sum = (u64, u64, u128);
    let mut best: Vec<Option<Sum>> = vec![None; problem.last + 1];
    best[0] = Some((0, 0, 0));
    let mut origins: Vec<Vec<usize>> = Vec::with_capacity(shards);
    for shard in 1..=shards {
        let mut next: Vec<Option<Sum>> = vec![None; problem.last + 1];
        let mut origin = vec![0; problem.last + 1];
        for to in shard..=problem.last {
            let here = if to == problem.last { (0, 0) } else { (problem.crossing)(to) };
            for from in (shard - 1..to).rev() {
                if (problem.least)(from, to) > worst {
                    break;
                }
                let work = (problem.work)(from, to);
                let square = u128::from(work).saturating_mul(u128::from(work));
                let Some((elements, inside, uneven)) = best[from] else { continue };
                let sum = (elements.saturating_add(here.0), inside + here.1, uneven.saturating_add(square));
                if next[to].is_none_or(|known| sum < known) && (problem.cost)(from, to) <= worst {
                    next[to] = Some(sum);
                    origin[to] = from;
                }
            }
        }
        best = next;
        origins.push(origin);
    }
    let mut stops = vec![problem.last];
    for origin in origins.iter().rev() {
        stops.push(origin[stops[stops.len() - 1]]);
    }
    stops.reverse();
    stops
}

/// Stops for `shards` shards with as equal a count of layers as the candidates allow.
///
/// `candidates` are stops between layers with the number of layers before each, ascending; `layers` is their total.
///
/// # Panics
/// When there are fewer candidates than cuts.
pub(crate) fn equal_layers(candidates: &[(usize, usize)], layers: usize, last: usize, shards: usize) -> Vec<usize> {
    assert!(shards >= 1 && candidates.len() + 1 >= shards, "callers check the count against the candidates");
    let mut stops = vec![0];
    let mut next = 0;
    for cut in 1..shards {
        // Later cuts need one candidate each.
        let end = candidates.len() - (shards - 1 - cut);
        let distance = |index: usize| (candidates[index].1 * shards).abs_diff(cut * layers);
        let chosen = (next..end).min_by_key(|&index| distance(index)).unwrap_or(next);
        stops.push(candidates[chosen].0);
        next = chosen + 1;
    }
    stops.push(last);
    stops
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All ways to choose `shards - 1` of the stops between.
    fn solutions(last: usize, shards: usize) -> Vec<Vec<usize>> {
        fn extend(prefix: Vec<usize>, last: usize, left: usize, out: &mut Vec<Vec<usize>>) {
            if left == 0 {
                out.push([prefix, vec![last]].concat());
                return;
            }
            for stop in prefix[prefix.len() - 1] + 1..last {
                extend([prefix.clone(), vec![stop]].concat(), last, left - 1, out);
            }
        }
        let mut out = Vec::new();
        extend(vec![0], last, shards - 1, &mut out);
        out
    }

    proptest! {
        #[test]
        fn balanced_is_as_good_as_trying_everything(
            weights in proptest::collection::vec(0u64..20, 1..9),
            crossings in proptest::collection::vec((0u64..6, 0u64..2), 9),
            edge in 0u64..4,
            shards in 1usize..9,
        ) {
            let last = weights.len();
            let shards = shards.min(last);
            let inner = |stop: usize| if stop == 0 || stop == last { 0 } else { crossings[stop].0 };
            let least = |from: usize, to: usize| weights[from..to].iter().sum::<u64>();
            // Boundaries make the cost of a shard fall as well as rise when it grows.
            let cost = |from: usize, to: usize| least(from, to) + edge * (inner(from) + inner(to));
            let crossing = |stop: usize| crossings[stop];
            let work = |from: usize, to: usize| least(from, to) + 1;
            let problem = Problem { last, cost: &cost, least: &least, work: &work, crossing: &crossing };
            let value = |stops: &[usize]| {
                let worst = stops.windows(2).map(|pair| cost(pair[0], pair[1])).max();
                let cuts = stops[1..stops.len() - 1].iter().map(|&stop| crossings[stop]);
                let uneven: u64 = stops.windows(2).map(|pair| work(pair[0], pair[1]).pow(2)).sum();
                (worst, cuts.fold((0, 0), |sum, cut| (sum.0 + cut.0, sum.1 + cut.1)), uneven)
            };
            let found = balanced(&problem, shards);
            prop_assert_eq!(found.len(), shards + 1);
            prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(found[0], 0);
            prop_assert_eq!(found[shards], last);
            let best = solutions(last, shards).iter().map(|stops| value(stops)).min();
            prop_assert_eq!(Some(value(&found)), best);
        }

        #[test]
        fn layers_are_spread_evenly_when_every_boundary_is_a_candidate(layers in 1usize..40, shards in 1usize..40) {
            let shards = shards.min(layers);
            let candidates: Vec<_> = (1..layers).map(|layer| (layer, layer)).collect();
            let stops = equal_layers(&candidates, layers, layers, shards);
            let sizes: Vec<_> = stops.windows(2).map(|pair| pair[1] - pair[0]).collect();
            prop_assert_eq!(sizes.len(), shards);
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{:?}", sizes);
        }
    }

    #[test]
    fn candidates_are_kept_for_later_cuts() {
        assert_eq!(equal_layers(&[(10, 5), (11, 6)], 6, 12, 3), [0, 10, 11, 12]);
        assert_eq!(equal_layers(&[(1, 1), (2, 2), (10, 10)], 12, 12, 3), [0, 2, 10, 12]);
    }
}
