//! What kernels are told beside their buffers: structures of 4-byte fields, the same as in `kernels/*.metal`.

use bytemuck::{Pod, Zeroable};

/// Of `rms_norm`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Norm {
    pub(super) n: u32,
    pub(super) eps: f32,
    pub(super) add: u32,
    pub(super) waves: u32,
}

/// Of `gate`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Gate {
    pub(super) rows: u32,
    pub(super) n: u32,
    pub(super) activation: u32,
}

/// Of `softcap`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Softcap {
    pub(super) n: u32,
    pub(super) cap: f32,
}

/// Of `gather`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Gather {
    pub(super) rows: u32,
    pub(super) cols: u32,
    pub(super) how: u32,
}

/// Of `gemv_…` and `gemm_…`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Product {
    pub(super) rows: u32,
    pub(super) cols: u32,
    pub(super) stride: u32,
    pub(super) n: u32,
    pub(super) y_stride: u32,
    pub(super) mode: u32,
    pub(super) shift: u32,
    pub(super) has_bias: u32,
}

/// Of `embed`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Embed {
    pub(super) cols: u32,
    pub(super) stride: u32,
    pub(super) shift: u32,
    pub(super) scale: f32,
}

/// Of `append`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Append {
    pub(super) table_len: u32,
    pub(super) rows: u32,
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) dim: u32,
    pub(super) width: u32,
    pub(super) pairs: u32,
    pub(super) block: u32,
    pub(super) eps: f32,
    pub(super) norms: u32,
}

/// Of `copy_blocks`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Copies {
    pub(super) kv_heads: u32,
    pub(super) block: u32,
    pub(super) width: u32,
}

/// Of `attend`, `merge` and `flash_…`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Attend {
    pub(super) table_len: u32,
    pub(super) row0: u32,
    pub(super) splits: u32,
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) dim: u32,
    pub(super) width: u32,
    pub(super) block: u32,
    pub(super) scale: f32,
    pub(super) cap: f32,
    pub(super) window: u32,
}

/// Of `argmax` and `top_k`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Largest {
    pub(super) n: u32,
    pub(super) stride: u32,
    pub(super) k: u32,
}
