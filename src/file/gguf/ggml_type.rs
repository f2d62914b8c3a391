//! The element types of ggml: identifier, name and block layout of each.
//!
//! A quantized type stores rows as blocks: `block_len` consecutive elements in `block_bytes` bytes. The numbers are
//! those of ggml's own table (a test compares every one); identifiers that ggml has retired have no name here and a
//! file that uses them is refused.

/// Declares the enum and its table in one place, so that they cannot differ.
macro_rules! ggml_types {
    ($($variant:ident = $id:literal, $name:literal, $len:literal, $bytes:literal;)*) => {
        /// An element type of ggml. Names are ggml's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types)]
        #[non_exhaustive]
        #[repr(u32)]
        pub enum GgmlType {
            $(
                #[doc = concat!("`", $name, "`: ", $len, " elements in ", $bytes, " bytes.")]
                $variant = $id,
            )*
        }

        impl GgmlType {
            /// Every type, in the order of identifiers.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The type that a file means by `id`; none if ggml has no such type or has retired it.
            pub fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// ggml's name in lower case, such as `q4_K`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The name in the way that dictionaries give it, such as `Q4_K`.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)*
                }
            }

            /// Elements of a block; 1 for plain numbers.
            pub fn block_len(self) -> usize {
                match self {
                    $(Self::$variant => $len,)*
                }
            }

            /// Bytes of a block.
            pub fn block_bytes(self) -> usize {
                match self {
                    $(Self::$variant => $bytes,)*
                }
            }
        }
    };
}

ggml_types! {
    F32 = 0, "f32", 1, 4;
    F16 = 1, "f16", 1, 2;
    Q4_0 = 2, "q4_0", 32, 18;
    Q4_1 = 3, "q4_1", 32, 20;
    Q5_0 = 6, "q5_0", 32, 22;
    Q5_1 = 7, "q5_1", 32, 24;
    Q8_0 = 8, "q8_0", 32, 34;
    Q8_1 = 9, "q8_1", 32, 36;
    Q2_K = 10, "q2_K", 256, 84;
    Q3_K = 11, "q3_K", 256, 110;
    Q4_K = 12, "q4_K", 256, 144;
    Q5_K = 13, "q5_K", 256, 176;
    Q6_K = 14, "q6_K", 256, 210;
    Q8_K = 15, "q8_K", 256, 292;
    IQ2_XXS = 16, "iq2_xxs", 256, 66;
    IQ2_XS = 17, "iq2_xs", 256, 74;
    IQ3_XXS = 18, "iq3_xxs", 256, 98;
    IQ1_S = 19, "iq1_s", 256, 50;
    IQ4_NL = 20, "iq4_nl", 32, 18;
    IQ3_S = 21, "iq3_s", 256, 110;
    IQ2_S = 22, "iq2_s", 256, 82;
    IQ4_XS = 23, "iq4_xs", 256, 136;
    I8 = 24, "i8", 1, 1;
    I16 = 25, "i16", 1, 2;
    I32 = 26, "i32", 1, 4;
    I64 = 27, "i64", 1, 8;
    F64 = 28, "f64", 1, 8;
    IQ1_M = 29, "iq1_m", 256, 56;
    BF16 = 30, "bf16", 1, 2;
    TQ1_0 = 34, "tq1_0", 256, 54;
    TQ2_0 = 35, "tq2_0", 256, 66;
    MXFP4 = 39, "mxfp4", 32, 17;
    NVFP4 = 40, "nvfp4", 64, 36;
    Q1_0 = 41, "q1_0", 128, 18;
    Q2_0 = 42, "q2_0", 64, 18;
}

impl GgmlType {
    /// ggml's identifier.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The type called `name`, in any case (`Q8_0`, `q4_k`).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of a row of `n` elements; none if `n` is not a whole number of blocks or the size overflows.
    pub fn row_bytes(self, n: usize) -> Option<usize> {
        if !n.is_multiple_of(self.block_len()) {
            return None;
        }
        (n / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_names_lead_back_to_their_type() {
        for &t in GgmlType::ALL {
            assert_eq!(GgmlType::from_id(t.id()), Some(t));
            assert_eq!(GgmlType::from_name(t.name()), Some(t));
            assert_eq!(GgmlType::from_name(&t.name().to_uppercase()), Some(t));
        }
        assert_eq!(GgmlType::from_id(4), None);
        assert_eq!(GgmlType::from_id(u32::MAX), None);
        assert_eq!(GgmlType::from_name("q9_9"), None);
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(GgmlType::F32.row_bytes(3), Some(12));
        assert_eq!(GgmlType::Q8_0.row_bytes(576), Some(18 * 34));
        assert_eq!(GgmlType::Q8_0.row_bytes(33), None);
        assert_eq!(GgmlType::Q4_K.row_bytes(0), Some(0));
        assert_eq!(GgmlType::F64.row_bytes(usize::MAX), None);
    }

    #[cfg(feature = "engine")]
    #[test]
    fn every_type_of_ggml_is_in_the_table_with_ggmls_numbers() {
        use std::ffi::CStr;
        let count = ggml_sys::GGML_TYPE_COUNT;
        for id in 0..count {
            // SAFETY: ggml takes any identifier below GGML_TYPE_COUNT and answers from a constant table.
            let (len, bytes) = unsafe { (ggml_sys::ggml_blck_size(id), ggml_sys::ggml_type_size(id)) };
            // SAFETY: as above.
            let name = unsafe { ggml_sys::ggml_type_name(id) };
            match GgmlType::from_id(id) {
                Some(t) => {
                    // SAFETY: ggml's names are string constants.
                    assert_eq!(unsafe { CStr::from_ptr(name) }.to_str().unwrap(), t.name());
                    assert_eq!(usize::try_from(len).unwrap(), t.block_len(), "{t}");
                    assert_eq!(bytes, t.block_bytes(), "{t}");
                }
                None => assert_eq!((len, bytes), (0, 0), "type {id} lives in ggml but not in our table"),
            }
        }
        assert!(GgmlType::ALL.iter().all(|t| t.id() < count));
    }
}
