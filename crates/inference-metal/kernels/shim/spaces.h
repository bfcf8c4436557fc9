// The Metal Shading Language as clang can check it without running it: address spaces are spaces, so that a pointer to the wrong one
// is an error as it is for Apple's compiler, and functions have the overloads of the standard library, so that a call that is not
// clear is one too. Only what the kernels use is declared.
#define SIMT_CPU 1  // no headers of Apple's

typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef _Float16 half;
typedef float float2 __attribute__((ext_vector_type(2)));
typedef float float4 __attribute__((ext_vector_type(4)));
typedef uint uint2 __attribute__((ext_vector_type(2)));
typedef uint uint3 __attribute__((ext_vector_type(3)));
typedef uint uint4 __attribute__((ext_vector_type(4)));
typedef ulong ulong2 __attribute__((ext_vector_type(2)));
// Vectors are made like objects there.
static inline float2 make_float2(float x, float y) { return float2{x, y}; }
static inline ulong2 make_ulong2(ulong x, ulong y) { return ulong2{x, y}; }
#define float2(...) make_float2(__VA_ARGS__)
#define ulong2(...) make_ulong2(__VA_ARGS__)

#define device __attribute__((address_space(1)))
#define constant const __attribute__((address_space(2)))
#define threadgroup __attribute__((address_space(3)))
#define thread
#define KERNEL(threads) extern "C" void
#define PLACE uint3 group, uint wave, uint lane
#define SHARED static __attribute__((address_space(3)))
#define UNROLL _Pragma("clang loop unroll(full)")
#define WAVE 32u
void sync_group();

template <class T, class U> static inline T as_type(U u) { return __builtin_bit_cast(T, u); }
#define FOR_FLOATS(F) F(float) F(half)
#define FOR_NUMBERS(F) FOR_FLOATS(F) F(short) F(ushort) F(int) F(uint) F(long) F(ulong)
#define FLOATS(T) T fma(T, T, T); T exp2(T); T fabs(T); T rsqrt(T);
#define NUMBERS(T) T max(T, T); T min(T, T);
#define LANES(T) T simd_sum(T); T simd_max(T); T simd_shuffle_xor(T, ushort);
FOR_FLOATS(FLOATS)
FOR_NUMBERS(NUMBERS)
FOR_FLOATS(LANES) LANES(short) LANES(ushort) LANES(int) LANES(uint)

enum class atomic_uint : uint {};
enum memory_order { memory_order_relaxed };
void atomic_store_explicit(threadgroup atomic_uint *, uint, memory_order);
uint atomic_load_explicit(const threadgroup atomic_uint *, memory_order);
uint atomic_fetch_add_explicit(threadgroup atomic_uint *, uint, memory_order);

template <class T, int COLS, int ROWS> struct simdgroup_matrix { private: T held[2]; };
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
template <class T, int COLS, int ROWS> simdgroup_matrix<T, COLS, ROWS> make_filled_simdgroup_matrix(T);
void simdgroup_load(simdgroup_float8x8 &, const threadgroup float *, ulong, ulong2, bool);
void simdgroup_store(simdgroup_float8x8, threadgroup float *, ulong, ulong2, bool);
void simdgroup_multiply(simdgroup_float8x8 &, simdgroup_float8x8, simdgroup_float8x8);
void simdgroup_multiply_accumulate(simdgroup_float8x8 &, simdgroup_float8x8, simdgroup_float8x8, simdgroup_float8x8);
