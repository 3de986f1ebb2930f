//! Chance that can be had again: the same seed, the same order of blows.

use std::time::Duration;

/// Numbers from a seed (SplitMix64, by Sebastiano Vigna, in the public domain).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed; `stream` gives each client one of its own.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Random(seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        random.number();
        random
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        match bound {
            0 => 0,
            bound => (self.number() % bound as u64) as usize,
        }
    }

    /// From half of it to one and a half: clients that all wait equally long come all at once.
    pub fn around(&mut self, mean: Duration) -> Duration {
        let thousandths = 500 + self.below(1001) as u32;
        mean * thousandths / 1000
    }
}

/// Deals all cards before any comes again.
#[derive(Debug)]
pub struct Deck<T> {
    cards: Vec<T>,
    /// How many of them have not been dealt yet: those at the front.
    left: usize,
}

impl<T: Copy> Deck<T> {
    /// A deck of these.
    pub fn new(cards: Vec<T>) -> Self {
        Deck { left: cards.len(), cards }
    }

    /// The next one; `None` when there are no cards at all.
    pub fn deal(&mut self, random: &mut Random) -> Option<T> {
        if self.left == 0 {
            self.left = self.cards.len();
        }
        let last = self.left.checked_sub(1)?;
        self.cards.swap(random.below(self.left), last);
        self.left = last;
        self.cards.get(last).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_stream_others() {
        let draw = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [random.number(), random.number(), random.number()]
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }

    #[test]
    fn waits_are_spread_around_their_mean() {
        let mut random = Random::new(1, 0);
        let waits: Vec<_> = (0..1000).map(|_| random.around(Duration::from_millis(20)).as_millis()).collect();
        assert!(waits.iter().all(|wait| (10..=30).contains(wait)), "{waits:?}");
        assert!(waits.contains(&11) && waits.contains(&29), "{waits:?}");
    }

    #[test]
    fn every_card_comes_once_in_each_round() {
        let mut deck = Deck::new((0..5).collect());
        let mut random = Random::new(3, 0);
        for _ in 0..4 {
            let mut round: Vec<i32> = (0..5).filter_map(|_| deck.deal(&mut random)).collect();
            round.sort_unstable();
            assert_eq!(round, [0, 1, 2, 3, 4]);
        }
        assert_eq!(Deck::<i32>::new(Vec::new()).deal(&mut random), None);
    }
}
