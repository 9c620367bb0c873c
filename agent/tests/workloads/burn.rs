//! Burns one CPU in a method of a generic type, so that its name is worth demangling.

mod furnace {
    use std::fmt::Debug;
    use std::hint::black_box;

    pub trait Burn {
        fn burn(&mut self);
    }

    pub struct Furnace<Fuel> {
        pub fuel: Fuel,
    }

    impl<Fuel: Copy + Debug + Into<u64>> Burn for Furnace<Fuel> {
        #[inline(never)]
        fn burn(&mut self) {
            for turn in 0..1_000_000_u64 {
                black_box(self.fuel.into().wrapping_mul(turn));
            }
        }
    }
}

use furnace::{Burn as _, Furnace};

fn main() {
    let mut furnace = Furnace { fuel: 7_u32 };
    loop {
        furnace.burn();
    }
}
