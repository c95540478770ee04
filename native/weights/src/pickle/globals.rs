//! The names a pickle may mention, by kind of file.

use crate::dtype::Dtype;

/// Which kind of file is read, and thereby which names it may mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// `statis.pkl`: dicts, lists, sets, text, numbers.
    Statistics,
    /// `params.pkl`: the same, and one parameter object of a PaddleX class.
    Params,
    /// `eval_res.pkl`: the same as statistics, and numpy arrays and scalars.
    Report,
    /// `sensitivities_xy.pkl`, `sensitivities.data`: the same as reports.
    Sensitivities,
    /// `model.sensi.data`: the same, and PaddleSlim's status object.
    SensitivityStatus,
    /// State dicts of PyTorch.
    Torch,
    /// State dicts of Paddle (numpy arrays).
    Paddle,
}

impl Profile {
    /// The profile of a workspace file by its usual name.
    pub fn of_file(name: &str) -> Option<Self> {
        Some(match name {
            "statis.pkl" | "statis" | "statistics" => Self::Statistics,
            "params.pkl" | "params" => Self::Params,
            "eval_res.pkl" | "eval_res" | "report" => Self::Report,
            "sensitivities_xy.pkl"
            | "sensitivities.data"
            | "sensitivities_xy"
            | "sensitivities" => Self::Sensitivities,
            "model.sensi.data" | "sensi_data" | "sensitivity_status" => Self::SensitivityStatus,
            _ => return None,
        })
    }

    fn has_numpy(self) -> bool {
        !matches!(self, Self::Statistics)
    }
}

/// A name with a meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    /// `collections.OrderedDict`, `builtins.dict`.
    Dict,
    /// `collections.defaultdict`: its first argument is dropped.
    DefaultDict,
    /// `builtins.set`, `builtins.frozenset`.
    Set,
    /// `builtins.list`, `builtins.tuple`: the value itself.
    Sequence,
    /// `_codecs.encode`: how protocol 2 writes bytes.
    Encode,
    /// `builtins.bytes`, `builtins.bytearray`.
    Bytes,
    /// `copyreg._reconstructor`: how protocols 0 and 1 make objects.
    Reconstructor,
    /// `builtins.object`, only as an argument of the former.
    Object,
    /// A default factory such as `builtins.int`, only as an argument.
    Factory,
    /// A class whose attributes are read as a dict.
    DataClass,
    /// `numpy.core.multiarray._reconstruct`.
    NumpyReconstruct,
    /// `numpy.core.numeric._frombuffer`.
    NumpyFromBuffer,
    /// `numpy.core.multiarray.scalar`.
    NumpyScalar,
    /// `numpy.ndarray`, only as an argument.
    NumpyArray,
    /// `numpy.dtype`.
    NumpyDtype,
    /// `builtins.eval` in Paddle's one form `eval('data', {'data': array})`, read as that array.
    PaddleTensor,
    /// `torch._utils._rebuild_tensor` and `_v2`.
    TorchTensor,
    /// `torch._utils._rebuild_tensor_v3`: as above with a dtype.
    TorchTensorV3,
    /// `torch._utils._rebuild_parameter`.
    TorchParameter,
    /// `torch.FloatStorage` …
    TorchStorage(Dtype),
    /// `torch.storage.UntypedStorage`.
    TorchUntyped,
    /// `torch.float32` …
    TorchDtype(Dtype),
    /// `torch.Size`: a tuple.
    TorchSize,
    /// `torch.device`, `torch.serialization._get_layout` and other values of no interest.
    Opaque,
}

/// What `module.name` means in this profile; `None` is refused.
pub(crate) fn lookup(profile: Profile, module: &str, name: &str) -> Option<Global> {
    common(module, name)
        .or_else(|| {
            if profile.has_numpy() {
                numpy(module, name)
            } else {
                None
            }
        })
        .or_else(|| match profile {
            Profile::Torch => torch(module, name),
            Profile::Paddle => match (module, name) {
                ("builtins" | "__builtin__", "eval") => Some(Global::PaddleTensor),
                _ => None,
            },
            Profile::Params => {
                let class = matches!(name, "ClsParams" | "DetParams" | "SegParams");
                let home =
                    module == "project.train.params" || module.ends_with(".project.train.params");
                (class && home).then_some(Global::DataClass)
            }
            Profile::SensitivityStatus => {
                let home = module.starts_with("paddleslim.") || module.contains(".paddleslim.");
                (name == "Status" && home).then_some(Global::DataClass)
            }
            _ => None,
        })
}

fn common(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") | ("builtins" | "__builtin__", "dict") => Global::Dict,
        ("collections", "defaultdict") => Global::DefaultDict,
        ("builtins" | "__builtin__", "set" | "frozenset") => Global::Set,
        ("builtins" | "__builtin__", "list" | "tuple") => Global::Sequence,
        ("builtins" | "__builtin__", "bytes" | "bytearray") => Global::Bytes,
        ("builtins" | "__builtin__", "object") => Global::Object,
        ("builtins" | "__builtin__", "int" | "float" | "str" | "bool") => Global::Factory,
        ("_codecs", "encode") => Global::Encode,
        ("copyreg" | "copy_reg", "_reconstructor") => Global::Reconstructor,
        _ => return None,
    })
}

fn numpy(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
            Global::NumpyReconstruct
        }
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::NumpyScalar,
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Global::NumpyFromBuffer,
        ("numpy", "ndarray") => Global::NumpyArray,
        ("numpy", "dtype") => Global::NumpyDtype,
        _ => return None,
    })
}

fn torch(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::TorchTensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::TorchTensorV3,
        ("torch._utils", "_rebuild_parameter") => Global::TorchParameter,
        ("torch" | "torch.storage", "UntypedStorage") => Global::TorchUntyped,
        ("torch", "Size") => Global::TorchSize,
        ("torch", "device") => Global::Opaque,
        ("torch" | "torch.storage" | "torch.cuda", storage) if storage.ends_with("Storage") => {
            Global::TorchStorage(match storage {
                "FloatStorage" => Dtype::F32,
                "DoubleStorage" => Dtype::F64,
                "HalfStorage" => Dtype::F16,
                "BFloat16Storage" => Dtype::Bf16,
                "LongStorage" => Dtype::I64,
                "IntStorage" => Dtype::I32,
                "ShortStorage" => Dtype::I16,
                "CharStorage" => Dtype::I8,
                "ByteStorage" => Dtype::U8,
                "BoolStorage" => Dtype::Bool,
                _ => return None,
            })
        }
        ("torch", dtype) => Global::TorchDtype(match dtype {
            "float32" | "float" => Dtype::F32,
            "float64" | "double" => Dtype::F64,
            "float16" | "half" => Dtype::F16,
            "bfloat16" => Dtype::Bf16,
            "int64" | "long" => Dtype::I64,
            "int32" | "int" => Dtype::I32,
            "int16" | "short" => Dtype::I16,
            "int8" => Dtype::I8,
            "uint8" => Dtype::U8,
            "uint16" => Dtype::U16,
            "uint32" => Dtype::U32,
            "uint64" => Dtype::U64,
            "bool" => Dtype::Bool,
            _ => return None,
        }),
        _ => return None,
    })
}
