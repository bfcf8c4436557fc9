// The largest logits of a row, so that only these come back. A threadgroup of SAMPLERS threads for each row.
// Numbers are compared by a key that is different for all of a row: what is no number first, then by value, falling, then by place.

#define SAMPLERS 256u

static inline uint ordered(float v) {
  const uint u = as_type<uint>(v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0xffffffffu;
  if ((u & 0x7fffffffu) == 0) return 0x80000000u;
  return u >> 31 ? ~u : u | 0x80000000u;
}
static inline ulong key_of(float v, uint place) { return (ulong)ordered(v) << 32 | (uint)~place; }
static inline uint place_of(ulong key) { return ~(uint)key; }

// Of the first n numbers of rows of `stride`.
struct Largest { uint n, stride, k; };

KERNEL(256) argmax(device uint *ids [[buffer(0)]], device float *values [[buffer(1)]], device const float *x [[buffer(2)]],
                   constant Largest &a [[buffer(3)]], PLACE) {
  SHARED ulong found[SAMPLERS / WAVE];
  device const float *row = x + (ulong)group.x * a.stride;
  const uint thread_of = wave * WAVE + lane;
  ulong best = 0;
  for (uint i = thread_of; i < a.n; i += SAMPLERS) best = max(best, key_of(row[i], i));
  const uint high = simd_max((uint)(best >> 32)), low = simd_max((uint)(best >> 32) == high ? (uint)best : 0u);
  if (lane == 0) found[wave] = (ulong)high << 32 | low;
  sync_group();
  if (thread_of != 0) return;
  for (uint w = 0; w < SAMPLERS / WAVE; w++) best = max(best, found[w]);
  ids[group.x] = place_of(best);
  values[group.x] = row[place_of(best)];
}

// Finds the k-th largest key, eight bits at a time by counting; then sorts the keys from there on.
KERNEL(256) top_k(device uint *ids [[buffer(0)]], device float *values [[buffer(1)]], device const float *x [[buffer(2)]],
                  constant Largest &a [[buffer(3)]], PLACE) {
  SHARED atomic_uint counts[256];
  SHARED atomic_uint taken;
  SHARED ulong keys[SAMPLERS];
  SHARED ulong prefix;  // of the k-th largest: the bits that are known, from the top
  SHARED uint wanted;   // how many of those that begin so; 0: all of them, and no bits below matter
  device const float *row = x + (ulong)group.x * a.stride;
  const uint thread_of = wave * WAVE + lane;
  if (thread_of == 0) {
    prefix = 0, wanted = a.k;
    atomic_store_explicit(&taken, 0u, memory_order_relaxed);
  }
  keys[thread_of] = 0;
  ulong mask = 0;
  for (uint shift = 56;; shift -= 8) {
    atomic_store_explicit(&counts[thread_of], 0u, memory_order_relaxed);
    sync_group();
    const ulong known = prefix;
    for (uint i = thread_of; i < a.n; i += SAMPLERS) {
      const ulong key = key_of(row[i], i);
      if ((key & mask) == known) atomic_fetch_add_explicit(&counts[(uint)(key >> shift) & 255u], 1u, memory_order_relaxed);
    }
    sync_group();
    if (thread_of == 0) {
      uint digit = 255, above = 0, here = atomic_load_explicit(&counts[255], memory_order_relaxed);
      while (above + here < wanted) above += here, here = atomic_load_explicit(&counts[--digit], memory_order_relaxed);
      prefix = known | (ulong)digit << shift;
      wanted = above + here == wanted ? 0 : wanted - above;
    }
    mask |= (ulong)255 << shift;
    sync_group();
    if (wanted == 0) break;  // at the last digit at the latest, since no two keys are the same
  }
  for (uint i = thread_of; i < a.n; i += SAMPLERS) {
    const ulong key = key_of(row[i], i);
    if (key >= prefix) keys[atomic_fetch_add_explicit(&taken, 1u, memory_order_relaxed)] = key;
  }
  // Bitonic, falling; places that were not taken have 0 and come last.
  for (uint size = 2; size <= SAMPLERS; size *= 2) {
    for (uint stride = size / 2; stride; stride /= 2) {
      sync_group();
      const uint other = thread_of ^ stride;
      if (other > thread_of) {
        const ulong p = keys[thread_of], q = keys[other];
        if (((thread_of & size) == 0) == (p < q)) keys[thread_of] = q, keys[other] = p;
      }
    }
  }
  sync_group();
  if (thread_of >= a.k) return;
  const uint place = place_of(keys[thread_of]);
  ids[group.x * a.k + thread_of] = place;
  values[group.x * a.k + thread_of] = row[place];
}
