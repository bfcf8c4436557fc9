// how 0: y[r] = x[index[r]]; 1: y[r, c] = x[r, index[c]]; 2: y[r, index[c]] = x[r, c]
KERNEL(256) gather(float *y, const float *x, const u32 *index, u32 rows, u32 cols, u32 how) {
  u64 i = (u64)BID_X * 256 + TID;
  if (i >= (u64)rows * cols) return;
  u64 r = i / cols, c = i % cols;
  if (how == 2) y[r * cols + index[c]] = x[i];
  else y[i] = how == 1 ? x[r * cols + index[c]] : x[index[r] * (u64)cols + c];
}
