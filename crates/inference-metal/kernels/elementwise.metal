// Norms, gates, sums, and rows that are copied.

struct Norm { uint n; float eps; uint add, waves; };

// h = x / sqrt(mean(x^2) + eps) * weight for each group of n columns; with `add`, x += y before. A threadgroup for each.
KERNEL(256) rms_norm(device float *x [[buffer(0)]], device const float *y [[buffer(1)]], device const float *weight [[buffer(2)]],
                     device float *h [[buffer(3)]], constant Norm &a [[buffer(4)]], PLACE) {
  SHARED float part[8];
  const ulong at = (ulong)group.x * a.n;
  const uint first = wave * WAVE + lane, step = a.waves * WAVE;
  float square = 0;
  for (uint i = first; i < a.n; i += step) {
    float v = x[at + i];
    if (a.add) x[at + i] = v += y[at + i];
    square = fma(v, v, square);
  }
  square = group_sum(square, part, a.waves, wave, lane);
  const float scale = rsqrt(square / (float)a.n + a.eps);
  for (uint i = first; i < a.n; i += step) h[at + i] = x[at + i] * (scale * weight[i]);
}

struct Gate { uint rows, n, activation; };

// y[r, c] = activated(x[r, c]) * x[r, n + c]
KERNEL(256) gate(device float *y [[buffer(0)]], device const float *x [[buffer(1)]], constant Gate &a [[buffer(2)]], PLACE) {
  const ulong i = (ulong)group.x * 256 + wave * WAVE + lane;
  if (i >= (ulong)a.rows * a.n) return;
  const ulong at = i / a.n * 2 * a.n + i % a.n;
  y[i] = activated(x[at], a.activation) * x[at + a.n];
}

struct Add { uint n; };

KERNEL(256) add(device float *x [[buffer(0)]], device const float *y [[buffer(1)]], constant Add &a [[buffer(2)]], PLACE) {
  const uint i = group.x * 256 + wave * WAVE + lane;
  if (i < a.n) x[i] += y[i];
}

struct Softcap { uint n; float cap; };

KERNEL(256) softcap(device float *x [[buffer(0)]], constant Softcap &a [[buffer(1)]], PLACE) {
  const uint i = group.x * 256 + wave * WAVE + lane;
  if (i < a.n) x[i] = a.cap * tanh_fast(x[i] / a.cap);
}

struct Gather { uint rows, cols, how; };

// how 0: y[r] = x[index[r]]; 1: y[r, c] = x[r, index[c]]; 2: y[r, index[c]] = x[r, c]
KERNEL(256) gather(device float *y [[buffer(0)]], device const float *x [[buffer(1)]], device const uint *index [[buffer(2)]],
                   constant Gather &a [[buffer(3)]], PLACE) {
  const ulong i = (ulong)group.x * 256 + wave * WAVE + lane;
  if (i >= (ulong)a.rows * a.cols) return;
  const ulong r = i / a.cols, c = i % a.cols;
  if (a.how == 2) y[r * a.cols + index[c]] = x[i];
  else y[i] = a.how == 1 ? x[r * a.cols + index[c]] : x[index[r] * (ulong)a.cols + c];
}
