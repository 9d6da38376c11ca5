// Loop after loop on the threads of one parallel region. A call of the thread library for each loop
// costs as much as a small layer takes: here a loop costs one cache line that goes to each thread
// and one that comes back.
//
//   team.lead(f)    on one thread: runs f, whose loops (parallel_range) the team shares
//   team.follow()   on the others: takes part in the loops until f returns
//
// A thread that has come takes its part in every loop from then on. Nobody waits for one that does
// not come, but for a moment before the first loop.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>

namespace pyops::cpu {

class Team {
 public:
  static constexpr int64_t kMostThreads = 1024;

  explicit Team(int64_t threads) : threads_(threads), members_(new Member[threads]) {}

  int64_t threads() const { return threads_; }
  // The team whose leader the calling thread is, outside of its loops; else null.
  static Team* current() { return own(); }

  // alone: no thread will follow.
  template <class F>
  void lead(bool alone, const F& f) {
    const Leading leading(this);
    int spins = 0;
    while (!alone && arrived_.load() < threads_ - 1 && spins < kMostWait) pause(&spins);
    f();
  }

  void follow() {
    const int64_t rank = arrived_.fetch_add(1) + 1;
    for (uint64_t last = 0;;) {
      const uint64_t word = next_word(last);
      if (word == kOver) return;
      const auto parts = static_cast<int64_t>(word % kMostParts);
      // Only who has a part looks at the job: the leader waits for nobody else with the next.
      if (rank < parts) {
        run_part(rank, parts);
        members_[rank].done.store(word, std::memory_order_release);
      }
      last = word;
    }
  }

  // f(begin, end) over parts of [0, count), at most one for each thread. Rethrows what one threw.
  template <class F>
  void loop(int64_t count, int64_t grain, const F& f) {
    job_.count = count;
    job_.context = &f;
    job_.run = [](const void* context, int64_t begin, int64_t end) {
      (*static_cast<const F*>(context))(begin, end);
    };
    share(grain > 1 ? (count + grain - 1) / grain : count);
  }

 private:
  // How long the leader waits for threads that wake up: about as long as that takes.
  static constexpr int kMostWait = 2000;
  static constexpr int kMostSpins = 20000;
  static constexpr uint64_t kMostParts = 1 << 16, kOver = ~uint64_t{0};

  struct alignas(64) Member {
    std::atomic<uint64_t> done{0};  // the word of the last loop that it took part in
  };
  struct alignas(64) Job {
    std::atomic<uint64_t> word{0};  // number of the loop * kMostParts + parts
    int64_t count = 0;
    const void* context = nullptr;
    void (*run)(const void*, int64_t, int64_t) = nullptr;
  };
  // Makes the team the calling thread's own, and ends the loops whatever happens.
  struct Leading {
    Team* team;
    explicit Leading(Team* t) : team(t) { own() = t; }
    ~Leading() {
      own() = nullptr;
      team->job_.word.store(kOver, std::memory_order_release);
    }
  };

  static Team*& own() {
    static thread_local Team* team = nullptr;
    return team;
  }

  // Spins for a while, then lets other threads have the CPU.
  static void pause(int* spins) {
    if (++*spins > kMostSpins) return std::this_thread::yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }

  uint64_t next_word(uint64_t last) const {
    for (int spins = 0;;) {
      const uint64_t word = job_.word.load(std::memory_order_acquire);
      if (word != last) return word;
      pause(&spins);
    }
  }

  void share(int64_t most) {
    const int64_t there = arrived_.load(std::memory_order_relaxed) + 1;
    const int64_t parts = most < there ? most : there;
    const uint64_t word = ++loops_ * kMostParts + static_cast<uint64_t>(parts);
    job_.word.store(word, std::memory_order_release);
    own() = nullptr;
    run_part(0, parts);
    for (int64_t i = 1; i < parts; ++i) {
      int spins = 0;
      while (members_[i].done.load(std::memory_order_acquire) != word) pause(&spins);
    }
    own() = this;
    if (!failed_.load()) return;
    const std::exception_ptr error = error_;
    error_ = nullptr;
    failed_.store(false);
    std::rethrow_exception(error);
  }

  void run_part(int64_t part, int64_t parts) {
    try {
      job_.run(job_.context, job_.count * part / parts, job_.count * (part + 1) / parts);
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
  }

  const int64_t threads_;
  const std::unique_ptr<Member[]> members_;
  Job job_;
  std::atomic<int64_t> arrived_{0};  // behind a whole line of the job
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
  uint64_t loops_ = 0;
};

}  // namespace pyops::cpu
