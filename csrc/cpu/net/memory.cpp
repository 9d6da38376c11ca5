// Which steps run image by image, and where registers are.
#include <algorithm>

#include "cpu/net/program.h"

namespace pyops::cpu {
namespace {

// Bytes that a step of one pass may read and write, so that the next step finds them in a cache.
constexpr int64_t kPassBytes = 4 << 20;

// The bytes of scratch, cut into pieces that are taken and free.
class Pieces {
 public:
  // The smallest free piece that holds so many bytes, or new ones at the end.
  int64_t take(int64_t bytes) {
    size_t best = pieces_.size();
    for (size_t i = 0; i < pieces_.size(); ++i) {
      const bool fits = pieces_[i].free && pieces_[i].bytes >= bytes;
      if (fits && (best == pieces_.size() || pieces_[i].bytes < pieces_[best].bytes)) best = i;
    }
    if (best == pieces_.size()) return grow(bytes);
    const int64_t left = pieces_[best].bytes - bytes, offset = pieces_[best].offset;
    pieces_[best] = {offset, bytes, false};
    if (left > 0) pieces_.insert(pieces_.begin() + best + 1, {offset + bytes, left, true});
    return offset;
  }

  void give_back(int64_t offset) {
    size_t i = 0;
    while (pieces_[i].offset != offset || pieces_[i].free) ++i;
    pieces_[i].free = true;
    if (i + 1 < pieces_.size() && pieces_[i + 1].free) join(i);
    if (i > 0 && pieces_[i - 1].free) join(i - 1);
  }

  int64_t end() const { return pieces_.empty() ? 0 : pieces_.back().offset + pieces_.back().bytes; }

 private:
  struct Piece {
    int64_t offset, bytes;
    bool free;
  };

  // The last piece becomes larger if it is free.
  int64_t grow(int64_t bytes) {
    if (pieces_.empty() || !pieces_.back().free) pieces_.push_back({end(), 0, true});
    pieces_.back().bytes = bytes;
    pieces_.back().free = false;
    return pieces_.back().offset;
  }
  void join(size_t i) {
    pieces_[i].bytes += pieces_[i + 1].bytes;
    pieces_.erase(pieces_.begin() + i + 1);
  }

  std::vector<Piece> pieces_;  // in order, without gaps
};

bool contains(const std::vector<int>& list, int value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// What a step reads and writes for one image; 0 where it has to run on all of them.
int64_t image_bytes(const NetProgram& program, const NetStep& step, int64_t images) {
  if (!step.by_images() || images < 2) return 0;
  int64_t bytes = bytes_of(program.registers[step.y].value) / images;
  for (const int at : step.reads) bytes += bytes_of(program.registers[at].value) / images;
  return bytes;
}

// How many images a pass of `stretch` has when `step` joins it; 0: it does not. The weights are
// read in every pass, and otherwise by every thread: the difference has to be less than to pass
// the step's input through memory.
int64_t pass_with(const NetProgram& program, const Stretch& stretch, const NetStep& step,
                  int64_t threads) {
  const int64_t images = program.images_of(step), bytes = image_bytes(program, step, images);
  if (bytes == 0 || images != program.images_of(*program.steps[stretch.first])) return 0;
  const int64_t pass = min64(stretch.images, max64(1, kPassBytes / bytes));
  const int64_t passes = (images + pass - 1) / pass;
  const int64_t input = bytes_of(program.registers[step.reads[0]].value);
  const int64_t more = passes - (stretch.apart ? threads : 1);
  return step.weight_bytes * more <= input ? pass : 0;
}

// Whether threads that take whole images have about as much to do.
bool are_even(int64_t images, int64_t threads) {
  const int64_t most = (images + threads - 1) / threads * threads;
  return threads > 1 && images > 1 && 8 * most <= 9 * images;
}

// The largest pass, of at most `most` images, that so many images fill evenly.
int64_t even_pass(int64_t images, int64_t most) {
  const int64_t passes = (images + most - 1) / most;
  return (images + passes - 1) / passes;
}

// Registers that are made and read last within the stretch hold the images of one pass.
void note_registers(NetProgram* program, const Stretch& s) {
  for (int i = s.first; i < s.end; ++i) {
    const NetStep& step = *program->steps[i];
    const int64_t images = program->images_of(step);
    for (const int at : step.reads) {
      program->registers[at].image_bytes = bytes_of(program->registers[at].value) / images;
    }
    Register& made = program->registers[step.y];
    made.image_bytes = bytes_of(made.value) / images;
    made.whole = made.last >= s.end || contains(program->outputs, step.y);
    if (!made.whole) made.bytes = round_up(made.image_bytes * s.images, 64);
  }
}

}  // namespace

void cut_batch(NetProgram* program, int64_t threads) {
  const int count = static_cast<int>(program->steps.size());
  for (int i = 0; i < count;) {
    const int64_t images = program->images_of(*program->steps[i]);
    const bool apart = are_even(images, threads);
    const int64_t share = apart ? (images + threads - 1) / threads : images;
    Stretch s = {i, i, share, apart};
    for (int64_t pass; i < count; ++i) {
      pass = pass_with(*program, s, *program->steps[i], threads);
      if (pass == 0) break;
      s.images = pass;
    }
    s.end = i = std::max(i, s.first + 1);
    if (apart) s.images = even_pass(share, s.images);
    if (s.images < images && s.end > s.first + 1) {
      note_registers(program, s);
      program->stretches.push_back(s);
      continue;
    }
    for (int at = s.first; at < s.end; ++at) program->stretches.push_back({at, at + 1, 0});
  }
}

namespace {

// Gives registers their places, and takes them back.
class Layout {
 public:
  Layout(NetProgram* program, Arena* arena) : program_(*program), arena_(*arena) {}

  // The registers that steps of a stretch make, as long as somebody reads them.
  void add(Stretch* s) {
    for (int i = s->first; i < s->end; ++i) take(program_.steps[i]->y, true, &all_);
    Pieces pass;
    for (int i = s->first; i < s->end; ++i) {
      take(program_.steps[i]->y, false, &pass);
      give_back(false, i, i + 1, &pass);
    }
    s->pass_bytes = pass.end();
    give_back(true, s->first, s->end, &all_);
    arena_.bytes = all_.end();
  }

 private:
  void take(int at, bool whole, Pieces* pieces) {
    const Register& r = program_.registers[at];
    if (r.whole != whole || contains(program_.outputs, at)) return;
    arena_.offsets[at] = pieces->take(r.bytes);
    taken_.push_back(at);
  }
  // Those that steps [first, end) read last; one that nobody reads is over when it is made.
  void give_back(bool whole, int first, int end, Pieces* pieces) {
    for (size_t i = 0; i < taken_.size();) {
      const int at = taken_[i];
      const Register& r = program_.registers[at];
      const int last = std::max(r.last, at - program_.inputs);
      if (r.whole == whole && last >= first && last < end) {
        pieces->give_back(arena_.offsets[at]);
        taken_.erase(taken_.begin() + static_cast<int64_t>(i));
      } else {
        ++i;
      }
    }
  }

  NetProgram& program_;
  Arena& arena_;
  Pieces all_;
  std::vector<int> taken_;
};

}  // namespace

Arena lay_out(NetProgram* program) {
  Arena arena = {std::vector<int64_t>(program->registers.size(), -1), 0};
  Layout layout(program, &arena);
  for (Stretch& s : program->stretches) layout.add(&s);
  return arena;
}

}  // namespace pyops::cpu
