// Runs kernels on the CPU, lane by lane: a fiber for each thread of a block, blocks one after the other.
// Fibers run until they meet a barrier or an exchange of their wave; between those their order is chosen (forward, backward,
// shuffled anew each time), so that a missing barrier shows. Shared memory is filled with NaN before each block, and so is what
// lanes that have ended contribute to an exchange. A barrier that not all lanes reach, or that they reach in different places, is
// an error.
// Matrix instructions take their operands from the lanes where the documents say they are.
#pragma once
#define SIMT_CPU 1
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <tuple>
#include <utility>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {
enum Status : uint8_t { READY, AT_BARRIER, AT_EXCHANGE, DONE };
#if defined(__SANITIZE_ADDRESS__)
extern "C" void __asan_unpoison_memory_region(void const volatile *, size_t);
constexpr unsigned STACK = 256 << 10;
#else
constexpr unsigned STACK = 64 << 10;
#endif
constexpr unsigned THREADS = 1024, SLOT = 64;

struct Fiber {
#if defined(__x86_64__)
  void *sp;
#else
  ucontext_t context;
#endif
  unsigned thread, parity, place;
  Status status;
};

struct State {
  Fiber fibers[THREADS], main;
  Fiber *current;
  unsigned block[3], threads;
  void (*body)(void *);
  void *argument;
  char *stacks;
  alignas(64) unsigned char slot[2][THREADS][SLOT];
  bool reduced[THREADS];  // of each wave: its first lane has already made `reduction` of what they show
  float reduction[THREADS];
  int order;
  uint64_t random;
  char error[200];
};
static State S;
static std::mutex lock;

#if defined(__x86_64__)
extern "C" void simt_switch(void **save, void *load);
__asm__(".text\n.local simt_switch\n.type simt_switch,@function\nsimt_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\nmov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n.size simt_switch,.-simt_switch\n");
static inline void swap(Fiber &from, Fiber &to) { simt_switch(&from.sp, to.sp); }
#else
static inline void swap(Fiber &from, Fiber &to) { swapcontext(&from.context, &to.context); }
#endif

static void fail(const char *what) {
  if (!S.error[0])
    snprintf(S.error, sizeof S.error, "%s (block %u,%u,%u thread %u)", what, S.block[0], S.block[1], S.block[2],
             S.current ? S.current->thread : 0);
}
static inline void wait(Status status, unsigned place) {
  Fiber *fiber = S.current;
  fiber->status = status;
  fiber->place = place;
  swap(*fiber, S.main);
}
static void entry() {
  S.body(S.argument);
  S.current->status = DONE;
  swap(*S.current, S.main);
  abort();
}
static void prepare(Fiber &fiber, unsigned thread) {
  char *base = S.stacks + (size_t)thread * STACK;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(base, STACK);  // a fiber of a launch that failed has not returned
#endif
  fiber.thread = thread;
  fiber.parity = 0;
  fiber.status = READY;
#if defined(__x86_64__)
  void **sp = (void **)(base + STACK - 64);
  sp[0] = (void *)entry;
  sp[1] = nullptr;
  fiber.sp = sp - 6;
  memset(fiber.sp, 0, 48);
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = base;
  fiber.context.uc_stack.ss_size = STACK;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#endif
}
// In which order n lanes or waves run now (Fisher and Yates).
static inline void turns(uint16_t *order, unsigned n) {
  for (unsigned i = 0; i < n; i++) order[i] = (uint16_t)(S.order == 1 ? n - 1 - i : i);
  for (unsigned i = S.order == 2 ? n : 0; i > 1; i--) {
    S.random ^= S.random << 13;
    S.random ^= S.random >> 7;
    S.random ^= S.random << 17;
    std::swap(order[i - 1], order[(S.random >> 32) * i >> 32]);
  }
}
extern "C" char __start_simt_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_simt_shared[] __attribute__((weak, visibility("hidden")));

#if defined(__SANITIZE_ADDRESS__)  // which keeps the arrays apart, and would not let memset between them
__attribute__((no_sanitize("address", "undefined"))) static void spoil_shared() {
  for (volatile char *p = __start_simt_shared; p < __stop_simt_shared; p++) *p = (char)0xff;
}
#else
static void spoil_shared() { memset(__start_simt_shared, 0xff, (size_t)(__stop_simt_shared - __start_simt_shared)); }
#endif

// Runs the lanes of a wave until all wait for the block or have ended.
static void run_wave(unsigned first, unsigned lanes) {
  for (;;) {
    uint16_t order[WAVE];
    turns(order, lanes);
    for (unsigned k = 0; k < lanes; k++) {
      Fiber &fiber = S.fibers[first + order[k]];
      if (fiber.status == READY) {
        S.current = &fiber;
        swap(S.main, fiber);
      }
    }
    unsigned waiting = 0, place = 0;
    for (unsigned l = 0; l < lanes; l++) {
      Fiber &fiber = S.fibers[first + l];
      if (fiber.status != AT_EXCHANGE) continue;
      if (waiting++ && fiber.place != place) return fail("lanes of a wave are at different exchanges");
      place = fiber.place;
    }
    if (!waiting) return;
    unsigned parity = 0;
    S.reduced[first / WAVE] = false;
    for (unsigned l = 0; l < lanes; l++)
      if (S.fibers[first + l].status == AT_EXCHANGE) parity = S.fibers[first + l].parity;
    for (unsigned l = 0; l < lanes; l++) {
      Fiber &fiber = S.fibers[first + l];
      S.current = &fiber;
      if (fiber.status == AT_BARRIER) return fail("a barrier while other lanes of the wave exchange");
      if (fiber.status == AT_EXCHANGE) fiber.status = READY;
      else memset(S.slot[parity][first + l], 0xff, SLOT);
    }
  }
}
static void run_block() {
  spoil_shared();
  const unsigned n = S.threads, waves = (n + WAVE - 1) / WAVE;
  for (unsigned i = 0; i < n; i++) prepare(S.fibers[i], i);
  while (!S.error[0]) {
    uint16_t order[THREADS / WAVE];
    turns(order, waves);
    for (unsigned k = 0; k < waves && !S.error[0]; k++) {
      unsigned first = order[k] * WAVE;
      run_wave(first, n - first < WAVE ? n - first : WAVE);
    }
    if (S.error[0]) return;
    unsigned waiting = 0, done = 0, place = 0;
    for (unsigned i = 0; i < n; i++) {
      Fiber &fiber = S.fibers[i];
      S.current = &fiber;
      done += fiber.status == DONE;
      if (fiber.status != AT_BARRIER) continue;
      if (waiting++ && fiber.place != place) return fail("threads of a block are at different barriers");
      place = fiber.place;
    }
    if (done == n) return;
    if (done) return fail("a barrier that not all threads reach");
    for (unsigned i = 0; i < n; i++) S.fibers[i].status = READY;
  }
}

// Every lane shows a value and sees those of its wave.
template <class V> static inline const unsigned char (*show(const V &v, unsigned place))[SLOT] {
  static_assert(sizeof(V) <= SLOT, "too much for an exchange");
  Fiber *fiber = S.current;
  unsigned parity = fiber->parity ^= 1, thread = fiber->thread;
  memcpy(S.slot[parity][thread], &v, sizeof v);
  wait(AT_EXCHANGE, place);
  return &S.slot[parity][thread / WAVE * WAVE];
}
template <class V> static inline V seen(const unsigned char (*all)[SLOT], unsigned lane) {
  V v;
  memcpy(&v, all[lane % WAVE], sizeof v);
  return v;
}
static inline unsigned lane() { return S.current->thread % WAVE; }

template <class... A, size_t... I>
static void run(void (*kernel)(A...), void **args, const unsigned grid[3], unsigned threads, std::index_sequence<I...>) {
  struct Call { void (*kernel)(A...); std::tuple<A...> args; } call{kernel, std::tuple<A...>(*(A *)args[I]...)};
  S.argument = &call;
  S.body = [](void *p) { auto *call = (Call *)p; std::apply(call->kernel, call->args); };
  S.threads = threads;
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0] && !S.error[0]; x++) {
        S.block[0] = x, S.block[1] = y, S.block[2] = z;
        run_block();
      }
}
template <class... A>
static const char *launch(void (*kernel)(A...), unsigned most, const unsigned grid[3], unsigned threads, int order,
                          unsigned seed, void **args) {
  std::lock_guard<std::mutex> guard(lock);
  S.error[0] = 0;
  S.current = nullptr;
  S.order = order;
  S.random = 88172645463325252ull + seed;
  if (!S.stacks)
    S.stacks = (char *)mmap(nullptr, (size_t)THREADS * STACK, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (!threads || threads > most || !grid[0] || !grid[1] || !grid[2] || grid[1] > 65535 || grid[2] > 65535)
    snprintf(S.error, sizeof S.error, "a launch of %u,%u,%u blocks of %u threads, of which %u are possible", grid[0], grid[1],
             grid[2], threads, most);
  else
    run(kernel, args, grid, threads, std::index_sequence_for<A...>());
  return S.error[0] ? S.error : nullptr;
}
static inline float bf16(uint16_t b) { uint32_t u = (uint32_t)b << 16; float f; memcpy(&f, &u, 4); return f; }
static inline float f16(uint16_t h) { _Float16 x; memcpy(&x, &h, 2); return (float)x; }
static inline float half_or_bf(uint16_t bits, bool half) { return half ? f16(bits) : bf16(bits); }
}  // namespace simt

#define KERNEL(threads) [[maybe_unused]] static void
#define DEV static inline
#define DEV_METHOD inline
#define SHARED static __attribute__((section("simt_shared"), used))
#define TID (simt::S.current->thread)
#define BID_X (simt::S.block[0])
#define BID_Y (simt::S.block[1])
#define BID_Z (simt::S.block[2])
// Sizes of a kernel's parameters, in bytes, and a 0.
namespace simt {
template <class... A> static inline const unsigned char *sizes_of(void (*)(A...)) {
  static const unsigned char sizes[] = {(unsigned char)sizeof(A)..., 0};
  return sizes;
}
}  // namespace simt
#define SIMT_EXPORT(name)                                                                                            \
  extern "C" __attribute__((visibility("default"))) const unsigned char *simt_sizes_##name() {                       \
    return simt::sizes_of(name);                                                                                     \
  }                                                                                                                  \
  extern "C" __attribute__((visibility("default"))) const char *simt_##name(const unsigned *grid, unsigned threads,  \
                                                                            int order, unsigned seed, void **args) { \
    return simt::launch(name, simt::THREADS, grid, threads, order, seed, args);                                      \
  }
#define sync_block() simt::wait(simt::AT_BARRIER, __LINE__)
static inline float bits_f(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t f_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static inline float shfl(float v, uint32_t lane) { return simt::seen<float>(simt::show(v, 1), lane); }
static inline float shfl_xor(float v, uint32_t mask) { return simt::seen<float>(simt::show(v, 2), simt::lane() ^ mask); }
// Sums and maxima of a wave, in the order of a butterfly: the same bits as shuffles give, in one exchange instead of six.
template <class F> static inline float simt_reduce(float v, unsigned place, F f) {
  auto all = simt::show(v, place);
  unsigned wave = simt::S.current->thread / WAVE;
  if (!simt::S.reduced[wave]) {
    float values[WAVE];
    for (unsigned l = 0; l < WAVE; l++) values[l] = simt::seen<float>(all, l);
    for (unsigned m = WAVE / 2; m; m >>= 1)
      for (unsigned l = 0; l < m; l++) values[l] = f(values[l], values[l + m]);
    simt::S.reduced[wave] = true;
    simt::S.reduction[wave] = values[0];
  }
  return simt::S.reduction[wave];
}
static inline float wave_sum(float v) { return simt_reduce(v, 3, [](float a, float b) { return a + b; }); }
static inline float wave_max(float v) { return simt_reduce(v, 4, [](float a, float b) { return a > b ? a : b; }); }
static inline float h2f(uint16_t h) { return simt::f16(h); }
static inline uint16_t f2h(float f) { _Float16 x = (_Float16)f; uint16_t h; memcpy(&h, &x, 2); return h; }
static inline float exp2_f(float x) { return exp2f(x); }
static inline float fma_f(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float rsqrt_f(float x) { return 1.0f / sqrtf(x); }
static inline float sqrt_f(float x) { return sqrtf(x); }
static inline void fence_device() {}
static inline uint32_t atomic_inc(uint32_t *p) { return (*p)++; }

// ---- matrix instructions: d = a·bᵀ + c of 16 x 16 numbers, where each lane holds the operands that the documents say

namespace simt {
// Of lane l, `count` numbers of 16 bits.
template <int N> struct Operands { uint16_t a[N], b[N]; };

// RDNA 3: lane l holds row l % 16 of both; its second half must hold the same. Result i of lane l is (2i + l / 16, l % 16).
static inline void wmma11(const uint16_t *a, const uint16_t *b, float *c, bool half) {
  Operands<16> mine;
  memcpy(mine.a, a, 32), memcpy(mine.b, b, 32);
  auto all = show(mine, 10);
  unsigned l = lane();
  // The hardware takes a from the lower half and b from either: they have to agree.
  auto twin = seen<Operands<16>>(all, l ^ 16);
  bool same = !memcmp(&twin, &mine, sizeof mine);
  for (int i = 0; i < 8; i++) {
    auto row = seen<Operands<16>>(all, 2 * i + l / 16);
    float s = 0;
    for (int k = 0; k < 16; k++) s += half_or_bf(row.a[k], half) * half_or_bf(mine.b[k], half);
    c[i] = same ? c[i] + s : NAN;
  }
}
// RDNA 4 (count 8) and CDNA (count 4): lane l holds columns count · (l / 16) … of row l % 16. Result i of lane l is
// (count · (l / 16) + i, l % 16).
template <int N> static inline void split_k(const uint16_t *a, const uint16_t *b, float *c, bool half) {
  Operands<N> mine;
  memcpy(mine.a, a, 2 * N), memcpy(mine.b, b, 2 * N);
  auto all = show(mine, 11);
  unsigned l = lane();
  for (int i = 0; i < N; i++)
    for (unsigned part = 0; part < 16 / N; part++) {
      auto rows = seen<Operands<N>>(all, (N * (l / 16) + i) % 16 + 16 * part), cols = seen<Operands<N>>(all, l % 16 + 16 * part);
      for (int k = 0; k < N; k++) c[i] += half_or_bf(rows.a[k], half) * half_or_bf(cols.b[k], half);
    }
}
// NVIDIA's m16n8k16, g = l / 4, t = l % 4. a: (g, 2t) (g + 8, 2t) (g, 2t + 8) (g + 8, 2t + 8); b: (g, 2t) (g, 2t + 8), pairs of
// columns each; c: (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1).
static inline void mma_m16n8k16(const uint32_t *a, const uint32_t *b, float *c, bool half) {
  struct Words { uint32_t a[4], b[2]; } mine;
  memcpy(mine.a, a, 16), memcpy(mine.b, b, 8);
  auto all = show(mine, 12);
  unsigned g = lane() / 4, t = lane() % 4;
  auto word = [&](uint32_t w, unsigned k) { return half_or_bf((uint16_t)(w >> 16 * (k % 2)), half); };
  for (unsigned i = 0; i < 4; i++) {
    unsigned row = g + 8 * (i / 2), col = 2 * t + i % 2;
    for (unsigned k = 0; k < 16; k++) {
      auto x = seen<Words>(all, row % 8 * 4 + k % 8 / 2), y = seen<Words>(all, col * 4 + k % 8 / 2);
      c[i] += word(x.a[row / 8 + k / 8 * 2], k) * word(y.b[k / 8], k);
    }
  }
}
}  // namespace simt
