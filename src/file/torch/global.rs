//! The names that a pickle of tensors may mention, and what each of them means here.

use crate::file::view::Dtype;

/// A class, function or constant that is known by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    /// The functions that put a tensor together, by version.
    Rebuild(u8),
    RebuildFromType,
    RebuildParameter,
    /// A class of tensors; only ever an argument.
    Class,
    /// A type of storage; none for bytes without a type.
    Storage(Option<Dtype>),
    /// A type of elements, and its name.
    Dtype(Dtype, &'static str),
    Size,
    Device,
    /// How bytes are written where the protocol lacks them.
    Encode,
}

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor") => Self::Rebuild(1),
            ("torch._utils", "_rebuild_tensor_v2") => Self::Rebuild(2),
            ("torch._utils", "_rebuild_tensor_v3") => Self::Rebuild(3),
            ("torch._tensor", "_rebuild_from_type_v2") => Self::RebuildFromType,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Self::RebuildParameter,
            ("torch", "Tensor") | ("torch.nn.parameter", "Parameter") => Self::Class,
            ("torch", "Size") => Self::Size,
            ("torch", "device") => Self::Device,
            ("_codecs", "encode") => Self::Encode,
            ("torch.storage", "UntypedStorage") => Self::Storage(None),
            ("torch", name) => return Self::storage(name).or_else(|| Self::dtype(name)),
            _ => return None,
        })
    }

    fn storage(name: &str) -> Option<Self> {
        let dtype = match name.strip_suffix("Storage")? {
            "Untyped" => return Some(Self::Storage(None)),
            "Float" => Dtype::F32,
            "Double" => Dtype::F64,
            "Half" => Dtype::F16,
            "BFloat16" => Dtype::BF16,
            "Long" => Dtype::I64,
            "Int" => Dtype::I32,
            "Short" => Dtype::I16,
            "Char" => Dtype::I8,
            "Byte" => Dtype::U8,
            "Bool" => Dtype::BOOL,
            _ => return None,
        };
        Some(Self::Storage(Some(dtype)))
    }

    fn dtype(name: &str) -> Option<Self> {
        let (dtype, name) = match name {
            "float32" => (Dtype::F32, "torch.float32"),
            "float64" => (Dtype::F64, "torch.float64"),
            "float16" => (Dtype::F16, "torch.float16"),
            "bfloat16" => (Dtype::BF16, "torch.bfloat16"),
            "float8_e4m3fn" => (Dtype::F8_E4M3, "torch.float8_e4m3fn"),
            "float8_e5m2" => (Dtype::F8_E5M2, "torch.float8_e5m2"),
            "int64" => (Dtype::I64, "torch.int64"),
            "int32" => (Dtype::I32, "torch.int32"),
            "int16" => (Dtype::I16, "torch.int16"),
            "int8" => (Dtype::I8, "torch.int8"),
            "uint64" => (Dtype::U64, "torch.uint64"),
            "uint32" => (Dtype::U32, "torch.uint32"),
            "uint16" => (Dtype::U16, "torch.uint16"),
            "uint8" => (Dtype::U8, "torch.uint8"),
            "bool" => (Dtype::BOOL, "torch.bool"),
            _ => return None,
        };
        Some(Self::Dtype(dtype, name))
    }
}
