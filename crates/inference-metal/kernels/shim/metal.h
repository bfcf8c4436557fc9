// What the kernels take from the Metal Shading Language, on the CPU: after inference-gpu's cpu/simt.h, which runs lanes as fibers.
// Names, types and arguments are those of the Metal Shading Language Specification
// (https://developer.apple.com/metal/Metal-Shading-Language-Specification.pdf); only what the kernels use is here.
#include <cmath>

typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long long ulong64;
#define ulong ulong64
typedef _Float16 half;
struct alignas(8) float2 { float x, y; float2() = default; float2(float x, float y) : x(x), y(y) {} };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { uint x, y; };
struct alignas(16) uint3 { uint x, y, z; };
struct alignas(16) uint4 { uint x, y, z, w; };
struct ulong2 { ulong x, y; ulong2(ulong x, ulong y) : x(x), y(y) {} };

namespace metal_shim {
static inline unsigned thread_index() { return TID; }
}
#define device
#define thread
#define threadgroup
#define constant const
#undef KERNEL
#define KERNEL(threads) [[maybe_unused]] static void
#define PLACE uint3 group, uint wave, uint lane
#define UNROLL
#define sync_group() simt::wait(simt::AT_BARRIER, __LINE__)

template <class T, class U> static inline T as_type(U u) {
  static_assert(sizeof(T) == sizeof(U), "as_type of another size");
  T t;
  memcpy(&t, &u, sizeof t);
  return t;
}
static inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float exp2(float x) { return exp2f(x); }
static inline float fabs(float x) { return fabsf(x); }
static inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline uint max(uint a, uint b) { return a > b ? a : b; }
static inline ulong max(ulong a, ulong b) { return a > b ? a : b; }
static inline uint min(uint a, uint b) { return a < b ? a : b; }

// ---- SIMD groups: all lanes take part, or it is an error

static inline float simd_sum(float v) { return wave_sum(v); }
static inline float simd_max(float v) { return wave_max(v); }
static inline uint simd_max(uint v) {
  auto all = simt::show(v, 20);
  for (unsigned l = 0; l < WAVE; l++) v = max(v, simt::seen<uint>(all, l));
  return v;
}
static inline float simd_shuffle_xor(float v, ushort mask) { return shfl_xor(v, mask); }

// ---- atomics: lanes take turns anyway

struct atomic_uint { uint value; };
enum memory_order { memory_order_relaxed };
static inline void atomic_store_explicit(atomic_uint *p, uint v, memory_order) { p->value = v; }
static inline uint atomic_load_explicit(atomic_uint *p, memory_order) { return p->value; }
static inline uint atomic_fetch_add_explicit(atomic_uint *p, uint v, memory_order) { return (p->value += v) - v; }

// ---- matrices of 8 x 8, of which each lane holds two numbers: which ones no kernel may know. Here they are permuted.

template <class T, int COLS, int ROWS> struct simdgroup_matrix { T held[2]; };
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;

namespace metal_shim {
// Which of the 64 numbers is at a place: 2 lane + 0 or 1.
static inline unsigned number_at(unsigned place) { return place * 27 % 64; }
struct Pair { simdgroup_float8x8 a, b; };
static float product[simt::THREADS / WAVE][64];

// Where lane's numbers are in memory.
template <class F> static inline void each(const ulong pitch, ulong2 origin, bool transposed, F f) {
  for (unsigned i = 0; i < 2; i++) {
    unsigned n = number_at(2 * simt::lane() + i), row = n / 8, col = n % 8;
    f(i, (origin.y + (transposed ? col : row)) * pitch + origin.x + (transposed ? row : col));
  }
}
// a·b, by the first lane of the SIMD group that comes here.
static inline const float *multiply(simdgroup_float8x8 a, simdgroup_float8x8 b) {
  auto all = simt::show(Pair{a, b}, 23);
  const unsigned wave = thread_index() / WAVE;
  if (simt::S.reduced[wave]) return product[wave];
  float left[64], right[64];
  for (unsigned place = 0; place < 64; place++) {
    const Pair pair = simt::seen<Pair>(all, place / 2);
    left[number_at(place)] = pair.a.held[place % 2], right[number_at(place)] = pair.b.held[place % 2];
  }
  for (unsigned row = 0; row < 8; row++)
    for (unsigned col = 0; col < 8; col++) {
      float sum = 0;
      for (unsigned k = 0; k < 8; k++) sum = fma(left[8 * row + k], right[8 * k + col], sum);
      product[wave][8 * row + col] = sum;
    }
  simt::S.reduced[wave] = true;
  return product[wave];
}
}  // namespace metal_shim

template <class T, int COLS, int ROWS> static inline simdgroup_matrix<T, COLS, ROWS> make_filled_simdgroup_matrix(T v) {
  return {{v, v}};
}
static inline void simdgroup_load(simdgroup_float8x8 &m, const float *from, ulong pitch, ulong2 origin, bool transposed) {
  metal_shim::each(pitch, origin, transposed, [&](unsigned i, ulong at) { m.held[i] = from[at]; });
}
static inline void simdgroup_store(simdgroup_float8x8 m, float *to, ulong pitch, ulong2 origin, bool transposed) {
  metal_shim::each(pitch, origin, transposed, [&](unsigned i, ulong at) { to[at] = m.held[i]; });
}
static inline void simdgroup_multiply_accumulate(simdgroup_float8x8 &d, simdgroup_float8x8 a, simdgroup_float8x8 b,
                                                 simdgroup_float8x8 c) {
  const float *product = metal_shim::multiply(a, b);
  for (unsigned i = 0; i < 2; i++) d.held[i] = c.held[i] + product[metal_shim::number_at(2 * simt::lane() + i)];
}
static inline void simdgroup_multiply(simdgroup_float8x8 &d, simdgroup_float8x8 a, simdgroup_float8x8 b) {
  const float *product = metal_shim::multiply(a, b);
  for (unsigned i = 0; i < 2; i++) d.held[i] = product[metal_shim::number_at(2 * simt::lane() + i)];
}

// ---- launches: an argument is a pointer, or the structure that a reference means; then comes the thread's place

namespace metal_shim {
template <class A> struct Argument { static A of(void *p) { return *(A *)p; } };
template <class A> struct Argument<A &> { static A &of(void *p) { return *(A *)p; } };
template <class... A> struct Kernel {
  template <size_t... I> static void call(void (*kernel)(A...), void **args, std::index_sequence<I...>) {
    typedef std::tuple<A...> All;
    const unsigned thread_of = thread_index();
    kernel(Argument<std::tuple_element_t<I, All>>::of(args[I])..., uint3{BID_X, BID_Y, BID_Z}, thread_of / WAVE, thread_of % WAVE);
  }
};
struct Call { void (*kernel)(); void (*run)(void (*)(), void **); void **args; };
template <class... A> static Call call(void (*kernel)(A...), void **args) {
  auto run = [](void (*kernel)(), void **args) {
    Kernel<A...>::call((void (*)(A...))kernel, args, std::make_index_sequence<sizeof...(A) - 3>());
  };
  return {(void (*)())kernel, run, args};
}
static void run(Call call) { call.run(call.kernel, call.args); }
template <class... A> static const unsigned char *sizes_of(void (*)(A...)) {
  static const unsigned char sizes[] = {(unsigned char)sizeof(A)..., 0};
  return sizes;
}
}  // namespace metal_shim
#undef SIMT_EXPORT
#define SIMT_EXPORT(name)                                                                                                     \
  extern "C" __attribute__((visibility("default"))) const unsigned char *simt_sizes_##name() {                                \
    return metal_shim::sizes_of(name);                                                                                        \
  }                                                                                                                           \
  extern "C" __attribute__((visibility("default"))) const char *simt_##name(const unsigned *grid, unsigned threads, int order, \
                                                                            unsigned seed, void **args) {                     \
    metal_shim::Call call = metal_shim::call(name, args);                                                                     \
    void *list[] = {&call};                                                                                                   \
    return simt::launch(metal_shim::run, simt::THREADS, grid, threads, order, seed, list);                                    \
  }
