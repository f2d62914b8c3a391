//! Which kernels this CPU can run. Holding a value proves it: there is no other way to get one than [`Cpu::detect`].

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
use super::portable;
use super::q8_0::Q8_0_LEN;
use super::screen::{PANEL, TILE};

/// A set of kernels that this CPU can run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cpu {
    #[cfg_attr(all(target_arch = "x86_64", target_feature = "avx2"), allow(dead_code))]
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
}

macro_rules! kernels {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {
        impl Cpu {
            $(
                #[inline]
                pub(super) fn $name(self, $($arg: $type),*) $(-> $out)? {
                    match self {
                        Self::Portable => portable::$name($($arg),*),
                        #[cfg(target_arch = "x86_64")]
                        Self::Avx2(proof) => proof.$name($($arg),*),
                    }
                }
            )*
        }
    };
}

kernels! {
    fn dot(a: &[f32], x: &[f32]) -> f32;
    fn dot_f16(a: &[u16], x: &[f32]) -> f32;
    fn dot_bf16(a: &[u16], x: &[f32]) -> f32;
    fn dot_q8_0(a: &[u8], x: &[f32]) -> f32;
    fn estimate_q8_0(a: &[u8], x: &[[i16; Q8_0_LEN]], weights: &[f32]) -> (f32, f32);
    fn axpy(c: f32, a: &[f32], y: &mut [f32]);
    fn dot8(rows: &[f32], x: &[f32]) -> [f32; 8];
    fn axpy8(c: &[f32; 8], rows: &[f32], y: &mut [f32]);
    fn axpy_f16(c: f32, a: &[u16], y: &mut [f32]);
    fn axpy_bf16(c: f32, a: &[u16], y: &mut [f32]);
    fn axpy_q8_0(c: f32, a: &[u8], y: &mut [f32]);
    fn products(tile: &[[i32; TILE]], panel: &[[i32; PANEL]], out: &mut [[i32; PANEL]; TILE]);
}

impl Cpu {
    /// The fastest kernels of this CPU. Costs one relaxed load; nothing when the build already assumes the features.
    #[inline]
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(proof) = Avx2::detect() {
            return Self::Avx2(proof);
        }
        Self::Portable
    }

    /// Every set that this CPU can run, the oracle first.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        all.extend(Avx2::detect().map(Self::Avx2));
        all
    }
}
