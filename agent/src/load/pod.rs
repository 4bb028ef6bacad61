//! The contract's types as aya reads them from maps.

/// Wraps types of the contract: aya asks for a promise that only their own crate or a wrapper's can give.
macro_rules! readable {
    ($($name:ident($type:ty);)*) => {
        $(
            #[derive(Clone, Copy)]
            #[repr(transparent)]
            struct $name($type);

            // SAFETY: integers alone, without holes.
            unsafe impl aya::Pod for $name {}
        )*
    };
}

pub(super) use readable;
