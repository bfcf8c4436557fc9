// What every kernel is written in: the Metal Shading Language of macOS 13, or C++ on the CPU (shim/metal.h).
// A library is this file and others after it, in one text.

#if !defined(SIMT_CPU)
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;

// At most `threads` in a threadgroup. A kernel's last parameters are PLACE.
#define KERNEL(threads) [[kernel, max_total_threads_per_threadgroup(threads)]] void
#define PLACE \
  uint3 group [[threadgroup_position_in_grid]], uint wave [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]
#define SHARED threadgroup
#define UNROLL _Pragma("clang loop unroll(full)")
#define sync_group() threadgroup_barrier(mem_flags::mem_threadgroup)
#define WAVE 32u  // lanes of a SIMD group, of every GPU of Apple's that has simdgroup_matrix
#endif

// ---- numbers

// How they are stored; the same in src/kernels/source.rs.
#define F32 0
#define F16 1
#define BF16 2

// bf16 by its bits: the type itself is newer than macOS 13.
static inline float bf16_to_float(ushort b) { return as_type<float>((uint)b << 16); }
static inline ushort float_to_bf16(float f) {  // to nearest even; what is no number stays none
  uint u = as_type<uint>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (ushort)(u >> 16 | 0x40u);
  return (ushort)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

template <int T> struct Number;
template <> struct Number<F32> { typedef float Bits; };
template <> struct Number<F16> { typedef ushort Bits; };
template <> struct Number<BF16> { typedef ushort Bits; };

template <int T> static inline float from_bits(ushort b) { return T == F16 ? (float)as_type<half>(b) : bf16_to_float(b); }
template <int T> static inline float number(float f) { return f; }
template <int T> static inline float number(ushort b) { return from_bits<T>(b); }
template <int T> static inline void put(device float *to, float f) { *to = f; }
template <int T> static inline void put(device ushort *to, float f) {
  *to = T == F16 ? as_type<ushort>((half)f) : float_to_bf16(f);
}

// ---- functions: of what is no number they make none

static inline float exp_fast(float x) { return exp2(x * 1.44269504088896f); }
static inline float tanh_fast(float x) {
  float a = fabs(x);
  float t = 1.0f - 2.0f / (exp_fast(2.0f * (a > 20.0f ? 20.0f : a)) + 1.0f);
  return x < 0 ? -t : t;
}
// 1: SiLU; 2: GELU by its approximation with tanh. See `Activation`.
static inline float activated(float x, uint activation) {
  if (activation == 1) return x / (1.0f + exp_fast(-x));
  return 0.5f * x * (1.0f + tanh_fast(0.7978845608f * (x + 0.044715f * x * x * x)));
}

// ---- sums over a threadgroup; every thread gets them

static inline float group_sum(float v, threadgroup float *part, uint waves, uint wave, uint lane) {  // part: [waves]
  v = simd_sum(v);
  if (waves == 1) return v;
  if (lane == 0) part[wave] = v;
  sync_group();
  v = 0;
  for (uint w = 0; w < waves; w++) v += part[w];
  return v;
}
