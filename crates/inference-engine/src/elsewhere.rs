//! Backends of this engine on platforms where they can't run.

/// Makes `$backend` a [`Backend`](inference_core::Backend) called `$name` that is not available, for `$reason`.
#[macro_export]
macro_rules! elsewhere {
    ($backend:ty, $name:expr, $reason:expr) => {
        impl ::inference_core::Backend for $backend {
            fn name(&self) -> &str {
                $name
            }

            fn availability(&self) -> ::inference_core::Availability {
                ::inference_core::Availability::Unavailable($reason.to_owned())
            }

            fn reads(&self, format: ::inference_core::Format) -> bool {
                use ::inference_core::Format;
                matches!(format, Format::Safetensors | Format::Gguf)
            }

            fn devices(&self) -> Vec<::inference_core::DeviceInfo> {
                Vec::new()
            }

            fn load(
                &self,
                _: &::std::path::Path,
                _: &::inference_core::LoadOptions,
            ) -> ::inference_core::Result<Box<dyn ::inference_core::TextModel>> {
                Err(::inference_core::Error::BackendNotAvailable {
                    name: $name.to_owned(),
                    reason: $reason.to_owned(),
                })
            }
        }
    };
}
