#include "cpu/int8_conv_relu/dense.h"

#include <cstring>
#include <vector>

#include "cpu/int8_conv_relu/pack.h"
#include "cpu/int8_conv_relu/strip.h"
#include "cpu/int8_gemm/operands.h"
#include "cpu/int8_sparse_gemm/call.h"

namespace pyops::cpu {
namespace {

constexpr char kOp[] = "int8_conv_relu";
// A strip stays in L2 beside the panels of w that pass it.
constexpr int64_t kStripBytes = 192 * 1024;

struct Group {
  const void* packed;
  const Int8GemmKernel* kernel;
  Codes form;
  const int32_t* w_sum;
};

// The rows of a block, in one buffer of a thread.
struct Rows {
  uint8_t* given;  // codes as the input has them
  uint8_t* form;   // in the kernel's form, where that is another one
};

struct Range {
  int64_t begin, end;
};

class DenseConv {
 public:
  DenseConv(const ConvShape& shape, const CodesImages& input, const void* packed,
            const Epilogue& epilogue);
  void run();

 private:
  void find_groups(const void* packed);
  Epilogue epilogue_of(int64_t group, int64_t pixel) const;
  void run_product() const;
  void run_strips();
  void find_runs();
  void run_cell(const StripPlan& plan, int64_t lines, Range pixels, Range columns, uint8_t* strip,
                const Rows& rows) const;
  // As many of the pixels as make a block; return how many. The strip begins at `first_line`.
  int64_t multiply_taps(const StripPlan& plan, int64_t group, const uint8_t* strip,
                        int64_t first_line, Range pixels, Range columns) const;
  int64_t multiply_rows(const StripPlan& plan, int64_t group, const uint8_t* strip,
                        int64_t first_line, Range pixels, Range columns, const Rows& rows) const;
  void multiply_block(int64_t group, const uint8_t* a, int64_t lda, const Taps* taps, Range pixels,
                      Range columns) const;

  // Whether a strip holds int8 codes as uint8 ones.
  bool flips() const { return input_.is_signed && groups_[0].form == Codes::u8; }

  const ConvShape& shape_;
  const CodesImages& input_;
  const Epilogue& epilogue_;
  const int64_t depth_, group_c_, group_oc_;
  const bool sparse_;
  Int8GemmKernel panels_;  // of a sparse weight
  std::vector<Group> groups_;
  std::vector<int64_t> taps_;  // where they are in a strip
  std::vector<int64_t> runs_;  // where taps whose codes stand side by side begin
  int64_t run_;                // codes of one
  bool by_taps_;
};

DenseConv::DenseConv(const ConvShape& shape, const CodesImages& input, const void* packed,
                     const Epilogue& epilogue)
    : shape_(shape),
      input_(input),
      epilogue_(epilogue),
      depth_(shape.kh * shape.kw * shape.c / shape.groups),
      group_c_(shape.c / shape.groups),
      group_oc_(shape.oc / shape.groups),
      sparse_(is_sparse(packed, sizeof(SparseHeader))),
      panels_() {
  find_groups(packed);
  const int tap_depth = groups_[0].kernel->tap_depth;
  by_taps_ = tap_depth > 0 && group_c_ % tap_depth == 0;
}

void DenseConv::find_groups(const void* packed) {
  if (sparse_) panels_ = panel_kernel(packed);
  for (int64_t group = 0; group < shape_.groups; ++group) {
    const void* weight = sparse_ ? packed : int8_conv_group(packed, group);
    const Int8GemmKernel& kernel =
        sparse_ ? panels_ : kernel_for(kOp, packed_header(weight), shape_.pixels());
    const int32_t* w_sum = sparse_ ? sparse_sums(packed) + group * group_oc_ : packed_sums(weight);
    groups_.push_back({weight, &kernel, kernel.form_of(input_.is_signed), w_sum});
  }
}

void DenseConv::run() {
  const bool one_to_one = shape_.kh * shape_.kw * shape_.stride_h * shape_.stride_w == 1 &&
                          shape_.oh == shape_.h && shape_.ow == shape_.w;
  if (one_to_one && shape_.groups == 1) return run_product();
  run_strips();
}

Epilogue DenseConv::epilogue_of(int64_t group, int64_t pixel) const {
  Epilogue e = epilogue_;
  advance_rows(&e, pixel);
  advance_columns(&e, group * group_oc_);
  e.w_sum = groups_[group].w_sum;
  e.zero_shift = shift_of(groups_[group].form, input_.is_signed);
  return e;
}

// Pixels are the rows of a product.
void DenseConv::run_product() const {
  const Group& group = groups_[0];
  const Operand w = {group.packed, group_oc_, 0, epilogue_of(0, 0)};
  Product p = {*group.kernel, &w, 1, {shape_.pixels(), group_oc_, depth_}, group.form};
  const bool as_given = group.form == (input_.is_signed ? Codes::s8 : Codes::u8);
  const int tap_depth = group.kernel->tap_depth;
  if (as_given && tap_depth > 0 && depth_ % tap_depth == 0) {
    p.lda = depth_;
    return multiply_prepared(p, reinterpret_cast<const char*>(input_.codes), 0, p.shape.m);
  }
  multiply(p, [&](int64_t first, int64_t count, char* to) {
    prepare_codes(input_.codes + first * depth_, input_.is_signed, depth_, count, depth_,
                  group.form, to, round_up(depth_, kDepthStep));
  });
}

void DenseConv::run_strips() {
  ConvShape places = shape_;
  if (!by_taps_) {  // runs of a line are copied: its codes stay side by side
    places.stride_w = 1;
    places.ow = (shape_.ow - 1) * shape_.stride_w + 1;
  }
  const StripPlan plan(places);
  const Shape s = {shape_.pixels(), group_oc_, depth_};
  const Grid grid = split(*groups_[0].kernel, s, threads_for({s.m, shape_.oc, s.k}));
  const int64_t most = grid.row_unit * ((grid.row_units - 1) / grid.tm + 1);  // pixels
  int64_t lines = min64(shape_.oh, (most + shape_.ow - 1) / shape_.ow + 1);
  while (lines > 1 && plan.bytes(lines) > kStripBytes) lines = (lines + 1) / 2;
  plan.taps(lines, &taps_);
  if (!by_taps_) find_runs();
  const int64_t strip = plan.bytes(lines);
  const int64_t given = by_taps_ ? 0 : kBlockRows * round_up(depth_, kDepthStep) + 64;
  int64_t widest = 1;  // bytes of a code in a kernel's form
  for (const Group& group : groups_) widest = max64(widest, code_bytes(group.form));
  const int64_t own = strip + given * (1 + widest);
  static thread_local Buffer buffer;
  uint8_t* scratch = static_cast<uint8_t*>(buffer.get(grid.tm * grid.tn * own));
  parallel_range(grid.tm * grid.tn, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint8_t* at = scratch + i * own;
      run_cell(plan, lines, {grid.row(i, s.m), grid.row_end(i, s.m)},
               {grid.col(i, s.n), grid.col_end(i, s.n)}, at, {at + strip, at + strip + given});
    }
  });
}

// A run is the taps of a line of the window, if these are all that stands there.
void DenseConv::find_runs() {
  const bool whole = shape_.dilation_w == 1 && shape_.groups == 1;
  const int64_t step = whole ? shape_.kw : 1;
  run_ = step * group_c_;
  runs_.clear();
  for (int64_t t = 0; t < shape_.kh * shape_.kw; t += step) runs_.push_back(taps_[t]);
}

void DenseConv::run_cell(const StripPlan& plan, int64_t lines, Range pixels, Range columns,
                         uint8_t* strip, const Rows& rows) const {
  const int64_t image_pixels = shape_.oh * shape_.ow;
  const auto flip = static_cast<uint8_t>(flips() ? 128 : 0);
  for (int64_t m = pixels.begin; m < pixels.end;) {
    const int64_t image = m / image_pixels, line = m % image_pixels / shape_.ow;
    const int64_t stop = image * image_pixels + min64(shape_.oh, line + lines) * shape_.ow;
    const int64_t end = min64(pixels.end, stop);
    const uint8_t* codes = input_.codes + image * shape_.h * shape_.w * shape_.c;
    const int64_t used = (end - 1) % image_pixels / shape_.ow - line + 1;
    plan.write({codes, input_.padding, flip}, line, used, lines, strip);
    const int64_t first_line = image * shape_.oh + line;
    for (int64_t group = 0; group < shape_.groups; ++group) {
      for (int64_t at = m; at < end;) {
        at += by_taps_ ? multiply_taps(plan, group, strip, first_line, {at, end}, columns)
                       : multiply_rows(plan, group, strip, first_line, {at, end}, columns, rows);
      }
    }
    m = end;
  }
}

int64_t DenseConv::multiply_taps(const StripPlan& plan, int64_t group, const uint8_t* strip,
                                 int64_t first_line, Range pixels, Range columns) const {
  const int64_t line = pixels.begin / shape_.ow - first_line, x0 = pixels.begin % shape_.ow;
  const int64_t count = shape_.kh * shape_.kw;
  const Taps taps = {shape_.ow, plan.pitch(), x0, count, group_c_, taps_.data()};
  const uint8_t* a = strip + (line * plan.pitch() + x0) * shape_.c + group * group_c_;
  const int64_t rows = min64(pixels.end - pixels.begin, taps.rows_within(kBlockRows));
  multiply_block(group, a, shape_.c, &taps, {pixels.begin, pixels.begin + rows}, columns);
  return rows;
}

// The runs of a pixel's rows of K codes, which begin `at` bytes from `from` on. Up to 15 codes
// behind a run are read, and written where the next run will be.
template <int kPieces>
void copy_runs(uint8_t* to, const uint8_t* from, const int64_t* at, int64_t runs, int64_t run) {
  for (int64_t i = 0; i < runs; ++i, to += run) {
    for (int j = 0; j < kPieces; ++j) std::memcpy(to + 16 * j, from + at[i] + 16 * j, 16);
  }
}

void copy_long_runs(uint8_t* to, const uint8_t* from, const int64_t* at, int64_t runs,
                    int64_t run) {
  for (int64_t i = 0; i < runs; ++i, to += run) std::memcpy(to, from + at[i], run);
}

using CopyRuns = void (*)(uint8_t*, const uint8_t*, const int64_t*, int64_t, int64_t);

CopyRuns copy_of(int64_t run) {
  if (run > 64) return copy_long_runs;
  constexpr CopyRuns kCopies[] = {copy_runs<1>, copy_runs<2>, copy_runs<3>, copy_runs<4>};
  return kCopies[(run - 1) / 16];
}

int64_t DenseConv::multiply_rows(const StripPlan& plan, int64_t group, const uint8_t* strip,
                                 int64_t first_line, Range pixels, Range columns,
                                 const Rows& rows) const {
  const Group& g = groups_[group];
  const int64_t count = min64(pixels.end - pixels.begin, kBlockRows);
  const int64_t lda = round_up(depth_, kDepthStep);
  const CopyRuns copy = copy_of(run_);
  int64_t line = pixels.begin / shape_.ow - first_line, x = pixels.begin % shape_.ow;
  for (int64_t r = 0; r < count; ++r) {
    const int64_t place = line * plan.pitch() + x * shape_.stride_w;
    const uint8_t* from = strip + place * shape_.c + group * group_c_;
    uint8_t* row = rows.given + r * lda;
    copy(row, from, runs_.data(), static_cast<int64_t>(runs_.size()), run_);
    // A damaged weight may have products there: not with what another call left.
    std::memset(row + depth_, 0, static_cast<size_t>(lda - depth_));
    if (++x == shape_.ow) x = 0, ++line;
  }
  const bool flipped = flips();
  const uint8_t* a = rows.given;
  if (g.form != (input_.is_signed && !flipped ? Codes::s8 : Codes::u8)) {
    prepare_codes(a, input_.is_signed && !flipped, lda, count, depth_, g.form, rows.form, lda);
    a = rows.form;
  }
  multiply_block(group, a, 0, nullptr, {pixels.begin, pixels.begin + count}, columns);
  return count;
}

void DenseConv::multiply_block(int64_t group, const uint8_t* a, int64_t lda, const Taps* taps,
                               Range pixels, Range columns) const {
  const Group& g = groups_[group];
  const int64_t rows = pixels.end - pixels.begin;
  const Epilogue e = epilogue_of(group, pixels.begin);
  const Operand w = {g.packed, group_oc_, 0, e, group};
  const Product p = {*g.kernel, &w, 1, {rows, group_oc_, depth_}, g.form, lda, taps};
  multiply_columns(p, w, e, reinterpret_cast<const char*>(a), rows, columns.begin, columns.end);
}

}  // namespace

void dense_conv(const ConvShape& shape, const CodesImages& input, const void* packed,
                const Epilogue& epilogue) {
  DenseConv(shape, input, packed, epilogue).run();
}

}  // namespace pyops::cpu
