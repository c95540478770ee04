// Memory for CPU tensors: kept and handed out again instead of being returned to the kernel.
//
// A training step allocates and frees the same large maps again and again. Through malloc each of them is mapped,
// zeroed page by page and unmapped at every step. Here blocks are kept by size; new ones are asked for in huge
// pages. Before memory is taken from the system, what is free there is looked at, so that a network that does not
// fit ends with an error that has numbers instead of the kernel killing the process.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/mman.h>

#include <atomic>
#include <map>
#include <mutex>
#include <vector>

#include "guard.h"

using namespace oarlock;

namespace {

constexpr size_t kHeader = 64;           // in front of each block; keeps the alignment oneDNN wants
constexpr size_t kSmall = 256 << 10;     // smaller ones are malloc's business
constexpr size_t kHuge = 2 << 20;        // size of a huge page
constexpr size_t kReserve = 192 << 20;   // left to everybody else on the machine
constexpr size_t kCheckEvery = 64 << 20; // the system is asked anew after so much growth

// Blocks that all began at the same place of a page would make loads wait for stores to other blocks (processors
// compare the last twelve bits of addresses first), and share few sets of the caches.
constexpr size_t kStagger = 4096;
constexpr size_t kStaggerStep = 9 * 64;

struct Header {
  size_t capacity;  // bytes behind the header; 0 for malloc's
  size_t offset;    // of the header in its mapping
};

class Allocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void *data = bytes == 0 ? nullptr : take(bytes);
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void *dest, const void *src, size_t count) const override { default_copy_data(dest, src, count); }

  void trim() {
    std::lock_guard<std::mutex> lock(mutex_);
    trim_locked();
  }

  void stats(uint64_t *used, uint64_t *peak, uint64_t *kept) {
    std::lock_guard<std::mutex> lock(mutex_);
    *used = used_, *peak = peak_, *kept = kept_;
    peak_ = used_;
  }

  std::atomic<uint64_t (*)()> available{nullptr};
  std::atomic<uint64_t> limit{0};

 private:
  static void release(void *data);
  void *take(size_t bytes);
  void *map(size_t capacity, size_t bytes);
  static void unmap(void *data);
  void check(size_t capacity, size_t bytes);
  void give(void *data, size_t capacity);

  void trim_locked() {
    for (auto &entry : free_)
      for (void *data : entry.second) unmap(data);
    free_.clear();
    kept_ = 0;
    unchecked_ = kCheckEvery;
  }

  std::mutex mutex_;
  std::map<size_t, std::vector<void *>> free_;
  uint64_t used_ = 0, peak_ = 0, kept_ = 0;
  size_t unchecked_ = kCheckEvery;
  size_t maps_ = 0;  // how many were made
};

// Never destroyed: tensors of static lifetime may outlive everything.
Allocator &allocator() {
  static Allocator *instance = new Allocator();
  return *instance;
}

Header *header(void *data) { return reinterpret_cast<Header *>(static_cast<char *>(data) - kHeader); }

// Eight sizes for each power of two, whole pages with the header.
size_t rounded(size_t bytes) {
  const size_t unit = bytes >= 16 * kHuge ? kHuge : std::max<size_t>(4096, (size_t(1) << (63 - __builtin_clzl(bytes))) / 8);
  return (bytes + kHeader + unit - 1) / unit * unit - kHeader;
}

void Allocator::release(void *data) {
  if (!data) return;
  const size_t capacity = header(data)->capacity;
  if (capacity == 0) {
    free(header(data));
  } else {
    allocator().give(data, capacity);
  }
}

void Allocator::give(void *data, size_t capacity) {
  std::lock_guard<std::mutex> lock(mutex_);
  used_ -= capacity;
  kept_ += capacity;
  free_[capacity].push_back(data);
}

void *Allocator::take(size_t bytes) {
  if (bytes < kSmall) {
    void *base = nullptr;
    TORCH_CHECK_WITH(OutOfMemoryError, posix_memalign(&base, kHeader, bytes + kHeader) == 0, "out of memory: ", bytes,
                     " bytes could not be allocated");
    static_cast<Header *>(base)->capacity = 0;
    return static_cast<char *>(base) + kHeader;
  }
  const size_t capacity = rounded(bytes);
  std::lock_guard<std::mutex> lock(mutex_);
  void *data = nullptr;
  size_t got = capacity;
  // The smallest kept block that fits, unless it would waste a quarter.
  auto entry = free_.lower_bound(capacity);
  if (entry != free_.end() && entry->first <= capacity + capacity / 4) {
    got = entry->first;
    data = entry->second.back();  // the one used last is the likeliest to be in the processor's cache
    entry->second.pop_back();
    if (entry->second.empty()) free_.erase(entry);
    kept_ -= got;
  } else {
    check(capacity, bytes);
    data = map(capacity, bytes);
  }
  used_ += got;
  peak_ = std::max(peak_, used_);
  return data;
}

// Refuses what the machine, or the limit that was set, does not have.
void Allocator::check(size_t capacity, size_t bytes) {
  const uint64_t most = limit.load();
  if (most && used_ + kept_ + capacity > most) {
    trim_locked();
    TORCH_CHECK_WITH(OutOfMemoryError, used_ + capacity <= most, "out of memory: ", bytes >> 20, " MiB more than the ",
                     used_ >> 20, " MiB in use would exceed the limit of ", most >> 20, " MiB");
  }
  unchecked_ += capacity;
  const auto probe = available.load();
  if (unchecked_ < kCheckEvery || !probe) return;
  unchecked_ = 0;
  uint64_t left = probe();
  if (left >= capacity + kReserve) return;
  trim_locked();
  left = probe();
  TORCH_CHECK_WITH(OutOfMemoryError, left >= capacity + kReserve, "out of memory: ", bytes >> 20,
                   " MiB more are needed, ", left >> 20, " MiB are available, tensors use ", used_ >> 20, " MiB");
}

void *Allocator::map(size_t capacity, size_t bytes) {
  const size_t size = capacity + kHeader + kStagger;
  const bool huge = size >= kHuge;
  // Room to begin at a huge page's boundary; the rest goes back.
  const size_t room = huge ? size + kHuge : size;
  void *raw = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) {
    trim_locked();
    raw = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  TORCH_CHECK_WITH(OutOfMemoryError, raw != MAP_FAILED, "out of memory: the system refused ", bytes >> 20, " MiB");
  char *base = static_cast<char *>(raw);
  if (huge) {
    const uintptr_t start = (reinterpret_cast<uintptr_t>(raw) + kHuge - 1) / kHuge * kHuge;
    base = reinterpret_cast<char *>(start);
    const size_t before = base - static_cast<char *>(raw), after = room - before - size;
    if (before) munmap(raw, before);
    if (after) munmap(base + size, after);
    madvise(base, size, MADV_HUGEPAGE);  // a hint: refused on kernels without them, and then nothing is lost
  }
  const size_t offset = maps_++ * kStaggerStep % kStagger;
  *reinterpret_cast<Header *>(base + offset) = {capacity, offset};
  return base + offset + kHeader;
}

void Allocator::unmap(void *data) {
  const Header h = *header(data);
  munmap(static_cast<char *>(data) - kHeader - h.offset, h.capacity + kHeader + kStagger);
}

}  // namespace

extern "C" ok_status ok_memory_init(uint64_t (*available)(void)) {
  return guarded([&] {
    allocator().available = available;
    static const bool once = [] {
      c10::SetCPUAllocator(&allocator(), 100);
      // oneDNN's scratch buffers come from malloc: keep those too.
      mallopt(M_MMAP_THRESHOLD, 32 << 20);
      mallopt(M_TRIM_THRESHOLD, 512 << 20);
      return true;
    }();
    (void)once;
  });
}

extern "C" void ok_memory_limit(uint64_t bytes) { allocator().limit = bytes; }

extern "C" void ok_memory_trim(void) {
  allocator().trim();
  malloc_trim(0);
}

extern "C" void ok_memory_stats(uint64_t *used, uint64_t *peak, uint64_t *kept) { allocator().stats(used, peak, kept); }
