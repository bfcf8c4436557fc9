// What every kernel is written in: one text for hiprtc, clang for AMD, NVRTC, and C++ on the CPU (../cpu/simt.h).
// Nothing is included: headers differ between the versions of these compilers.
// WAVE, the lanes that run together, is defined by whoever compiles: 32 or 64.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#if defined(SIMT_CPU) || defined(__CUDACC_RTC__)
struct alignas(16) u32x4 { u32 x, y, z, w; };
struct alignas(8) u32x2 { u32 x, y; };
struct alignas(16) f32x4 { float x, y, z, w; };
#else  // vectors stay in registers where clang would copy structures through memory
typedef u32 u32x4 __attribute__((ext_vector_type(4)));
typedef u32 u32x2 __attribute__((ext_vector_type(2)));
typedef float f32x4 __attribute__((ext_vector_type(4)));
#endif

#if defined(SIMT_CPU)
// simt.h came first and has defined the lanes, their barriers and their exchange.
#elif defined(__CUDACC_RTC__)
#define KERNEL(threads) extern "C" __global__ __launch_bounds__(threads) void
#define DEV __device__ static __forceinline__
#define DEV_METHOD __device__ __forceinline__
#define SHARED __shared__
#define TID threadIdx.x
#define BID_X blockIdx.x
#define BID_Y blockIdx.y
#define BID_Z blockIdx.z
#define sync_block() __syncthreads()
DEV float bits_f(u32 u) { return __uint_as_float(u); }
DEV u32 f_bits(float f) { return __float_as_uint(f); }
DEV float shfl(float v, u32 lane) { return __shfl_sync(0xffffffffu, v, (int)lane); }
DEV float shfl_xor(float v, u32 mask) { return __shfl_xor_sync(0xffffffffu, v, (int)mask); }
DEV float h2f(u16 h) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h)); return f; }
DEV u16 f2h(float f) { u16 h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f)); return h; }
DEV float exp2_f(float x) { return exp2f(x); }
DEV float fma_f(float a, float b, float c) { return fmaf(a, b, c); }
DEV float rsqrt_f(float x) { return rsqrtf(x); }
DEV float sqrt_f(float x) { return sqrtf(x); }
DEV void fence_device() { __threadfence(); }
DEV u32 atomic_inc(u32 *p) { return atomicAdd(p, 1u); }
#else  // clang for AMD, and hiprtc, which knows some of these words already
#ifndef __global__
#define __global__ __attribute__((global))
#endif
#ifndef __device__
#define __device__ __attribute__((device))
#endif
#ifndef __shared__
#define __shared__ __attribute__((shared))
#endif
#define KERNEL(threads) extern "C" __global__ __attribute__((amdgpu_flat_work_group_size(1, threads))) void
#define DEV __device__ static inline __attribute__((always_inline))
#define DEV_METHOD __device__ inline __attribute__((always_inline))
#define SHARED __shared__
#define TID ((u32)__builtin_amdgcn_workitem_id_x())
#define BID_X ((u32)__builtin_amdgcn_workgroup_id_x())
#define BID_Y ((u32)__builtin_amdgcn_workgroup_id_y())
#define BID_Z ((u32)__builtin_amdgcn_workgroup_id_z())
DEV void sync_block() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
DEV float bits_f(u32 u) { float f; __builtin_memcpy(&f, &u, 4); return f; }
DEV u32 f_bits(float f) { u32 u; __builtin_memcpy(&u, &f, 4); return u; }
DEV u32 lane_id() {
  u32 low = __builtin_amdgcn_mbcnt_lo(~0u, 0u);
  return WAVE == 64 ? __builtin_amdgcn_mbcnt_hi(~0u, low) : low;
}
DEV float shfl(float v, u32 lane) { return bits_f(__builtin_amdgcn_ds_bpermute((int)(lane << 2), (int)f_bits(v))); }
DEV float shfl_xor(float v, u32 mask) { return shfl(v, lane_id() ^ mask); }
DEV float h2f(u16 h) { _Float16 x; __builtin_memcpy(&x, &h, 2); return (float)x; }
DEV u16 f2h(float f) { _Float16 x = (_Float16)f; u16 h; __builtin_memcpy(&h, &x, 2); return h; }
#if __has_builtin(__builtin_amdgcn_exp2f)
DEV float exp2_f(float x) { return __builtin_amdgcn_exp2f(x); }
#else
DEV float exp2_f(float x) { return __builtin_exp2f(x); }
#endif
DEV float rsqrt_f(float x) { return __builtin_amdgcn_rsqf(x); }
DEV float fma_f(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEV float sqrt_f(float x) { return __builtin_sqrtf(x); }
DEV void fence_device() { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "agent"); }
DEV u32 atomic_inc(u32 *p) { return __atomic_fetch_add(p, 1u, __ATOMIC_RELAXED); }
#endif

#if defined(__clang__) && !defined(SIMT_CPU)
#define UNROLL _Pragma("unroll")
#define ONE_BY_ONE _Pragma("nounroll")
#elif defined(__CUDACC_RTC__)
#define UNROLL _Pragma("unroll")
#define ONE_BY_ONE _Pragma("unroll 1")
#else
#define UNROLL
#define ONE_BY_ONE
#endif

// Nothing is moved over this place: what is fetched ahead has to fit the registers.
#if !defined(SIMT_CPU) && !defined(__CUDACC_RTC__)
#if __has_builtin(__builtin_amdgcn_sched_barrier)
#define FETCH_NO_FURTHER() __builtin_amdgcn_sched_barrier(0)
#endif
#endif
#if !defined(FETCH_NO_FURTHER)
#define FETCH_NO_FURTHER()
#endif

// ---- numbers of 16 bits

DEV float b2f(u16 b) { return bits_f((u32)b << 16); }
DEV u16 f2b(float f) {  // to nearest even; what is no number stays none
  u32 u = f_bits(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (u16)(u >> 16 | 0x40u);
  return (u16)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

// How numbers are stored; the same as `Stored` in src/load.rs.
#define F32 0
#define F16 1
#define BF16 2

template <int T> DEV float from16(u16 bits) { return T == F16 ? h2f(bits) : b2f(bits); }
template <int T> DEV u16 to16(float f) { return T == F16 ? f2h(f) : f2b(f); }
DEV float number(const void *p, u64 i, int type) {
  return type == F32 ? ((const float *)p)[i] : type == F16 ? h2f(((const u16 *)p)[i]) : b2f(((const u16 *)p)[i]);
}
// The number with as many bits of mantissa as the type has, whatever its exponent.
template <int T> DEV float rounded(float f) {
  if (T == F32) return f;
  const u32 drop = T == F16 ? 13 : 16;
  u32 u = f_bits(f);
  if ((u & 0x7f800000u) == 0x7f800000u) return f;
  return bits_f((u + (1u << (drop - 1)) - 1u + (u >> drop & 1u)) & ~((1u << drop) - 1u));
}

// ---- functions
// Sums whose bits must be the same in several kernels name their multiply-adds: where a compiler may choose, it does not choose
// alike.

DEV float exp_f(float x) { return exp2_f(x * 1.44269504088896f); }
DEV float max_f(float a, float b) { return a > b ? a : b; }
DEV u32 min_u(u32 a, u32 b) { return a < b ? a : b; }
DEV float tanh_f(float x) {
  float a = x < 0 ? -x : x;
  float t = 1.0f - 2.0f / (exp_f(2.0f * (a > 20.0f ? 20.0f : a)) + 1.0f);
  return x < 0 ? -t : t;
}
// 1: SiLU; 2: GELU by its approximation with tanh. See `Activation`.
DEV float activated(float x, int activation) {
  if (activation == 1) return x / (1.0f + exp_f(-x));
  return 0.5f * x * (1.0f + tanh_f(0.7978845608f * (x + 0.044715f * x * x * x)));
}

// ---- sums over a wave, and over a block of up to 1024 threads; every lane gets them

#if !defined(SIMT_CPU)
DEV float wave_sum(float v) {
  UNROLL for (u32 m = WAVE / 2; m; m >>= 1) v += shfl_xor(v, m);
  return v;
}
DEV float wave_max(float v) {
  UNROLL for (u32 m = WAVE / 2; m; m >>= 1) v = max_f(v, shfl_xor(v, m));
  return v;
}
#endif
DEV float block_sum(float v, float *part, u32 waves) {  // part: [waves] in shared memory
  v = wave_sum(v);
  if (waves == 1) return v;
  if (TID % WAVE == 0) part[TID / WAVE] = v;
  sync_block();
  v = 0;
  for (u32 w = 0; w < waves; w++) v += part[w];
  return v;
}
