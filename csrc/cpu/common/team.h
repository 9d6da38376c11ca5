// Loop after loop on the threads of one parallel region. A call of the thread library for each loop
// costs as much as a small layer takes: here a loop costs two exchanges of a cache line.
//
//   team.lead(f)     on one thread: runs f, whose loops (parallel_range) the team shares
//   team.follow(i)   on the others, i = 1, 2, ...: takes part in the loops until f returns
//
// No thread is waited for that does not come: whoever is there does the work.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>

namespace pyops::cpu {

class Team {
 public:
  explicit Team(int64_t threads) : threads_(threads), claims_(new Claim[threads]) {}

  int64_t threads() const { return threads_; }
  // The team whose leader the calling thread is, outside of its loops; else null.
  static Team* current() { return own(); }

  template <class F>
  void lead(const F& f) {
    const Leading leading(this);
    f();
  }

  void follow(int64_t index) {
    for (uint64_t last = 0;;) {
      const uint64_t round = next_round(last);
      if (round == kOver) return;
      take_parts(round, index);
      last = round;
    }
  }

  // f(begin, end) over parts of [0, count), at most one for each thread. Rethrows what one threw.
  template <class F>
  void loop(int64_t count, int64_t grain, const F& f) {
    const int64_t most = grain > 1 ? (count + grain - 1) / grain : count;
    parts_.store(most < threads_ ? most : threads_, std::memory_order_relaxed);
    count_ = count;
    context_ = &f;
    run_ = [](const void* context, int64_t begin, int64_t end) {
      (*static_cast<const F*>(context))(begin, end);
    };
    share();
  }

 private:
  struct alignas(64) Claim {
    std::atomic<uint64_t> state{0};
  };
  // Makes the team the calling thread's own, and ends the rounds whatever happens.
  struct Leading {
    Team* team;
    explicit Leading(Team* t) : team(t) { own() = t; }
    ~Leading() {
      own() = nullptr;
      team->round_.store(kOver, std::memory_order_release);
    }
  };
  static constexpr uint64_t kOver = ~uint64_t{0};

  static Team*& own() {
    static thread_local Team* team = nullptr;
    return team;
  }

  // Calls for a while, then lets other threads have the CPU.
  static void pause(int* spins) {
    if (++*spins > 20000) return std::this_thread::yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }

  uint64_t next_round(uint64_t last) const {
    for (int spins = 0;;) {
      const uint64_t round = round_.load(std::memory_order_acquire);
      if (round != last) return round;
      pause(&spins);
    }
  }

  void share() {
    const uint64_t round = round_.load(std::memory_order_relaxed) + 1;
    const int64_t parts = parts_.load(std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    for (int64_t i = 0; i < parts; ++i) claims_[i].state.store(2 * round);
    round_.store(round, std::memory_order_release);
    own() = nullptr;
    take_parts(round, 0);
    int spins = 0;
    while (done_.load(std::memory_order_acquire) < parts) pause(&spins);
    own() = this;
    if (!error_) return;
    const std::exception_ptr error = error_;
    error_ = nullptr;
    failed_.store(false);
    std::rethrow_exception(error);
  }

  // Parts of the round that nobody has taken, its own first: what a loop wrote is in its cache.
  // Whoever comes late finds none of his round, for a round ends when all its parts are done.
  void take_parts(uint64_t round, int64_t index) {
    const int64_t parts = parts_.load(std::memory_order_relaxed);
    for (int64_t i = 0; i < parts; ++i) {
      const int64_t part = (index + i) % parts;
      uint64_t open = 2 * round;
      if (claims_[part].state.compare_exchange_strong(open, open + 1)) run_part(part, parts);
    }
  }

  void run_part(int64_t part, int64_t parts) {
    try {
      run_(context_, count_ * part / parts, count_ * (part + 1) / parts);
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
    done_.fetch_add(1, std::memory_order_release);
  }

  const int64_t threads_;
  const std::unique_ptr<Claim[]> claims_;  // 2 * round: open, + 1: taken
  alignas(64) std::atomic<uint64_t> round_{0};
  std::atomic<int64_t> parts_{0};
  // Of this round: read by those who have taken a part.
  int64_t count_ = 0;
  const void* context_ = nullptr;
  void (*run_)(const void*, int64_t, int64_t) = nullptr;
  std::exception_ptr error_;
  alignas(64) std::atomic<int64_t> done_{0};
  std::atomic<bool> failed_{false};
};

}  // namespace pyops::cpu
