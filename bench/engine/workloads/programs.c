// Integer workloads that are like small programs: tables, trees, strings, an interpreter. See bench.h for what all of
// them promise.
#include "bench.h"

static void sort_range(uint32_t* first, uint32_t* last, int (*less)(uint32_t, uint32_t)) {
  while (last - first > 16) {
    uint32_t pivot = first[(last - first) / 2], *i = first, *j = last - 1;
    while (i <= j) {
      while (less(*i, pivot)) i++;
      while (less(pivot, *j)) j--;
      if (i <= j) {
        uint32_t t = *i;
        *i++ = *j, *j-- = t;
      }
    }
    sort_range(first, j + 1, less);
    first = i;
  }
  for (uint32_t* i = first + 1; i < last; i++) {
    uint32_t value = *i, *j = i;
    for (; j > first && less(value, j[-1]); j--) *j = j[-1];
    *j = value;
  }
}

static __attribute__((noinline)) int less_than(uint32_t a, uint32_t b) {
  return a < b;
}

static uint64_t sort(uint64_t count) {
  enum { kSize = 20000 };
  static uint32_t values[kSize];
  int (*less)(uint32_t, uint32_t) = less_than;
  OPAQUE(less);
  uint64_t state = 1, result = 0;
  for (uint64_t round = 0; round < count; round++) {
    for (int i = 0; i < kSize; i++) values[i] = (uint32_t)next_random(&state);
    sort_range(values, values + kSize, less);
    result = mix(result, values[round % kSize]);
  }
  return result;
}

// Open addressing over 4 MiB: accesses that no cache of translations of 4 KiB pages holds.
static uint64_t hash_table(uint64_t count) {
  enum { kSlots = 1 << 18 };
  static struct {
    uint64_t key, value;
  } slots[kSlots];
  uint64_t state = 1, found = 0;
  for (uint64_t i = 0; i < count; i++) {
    if (i % (kSlots / 2) == 0) {
      memset(slots, 0, sizeof slots);
      state = 1 + i;
    }
    uint64_t key = next_random(&state) % (kSlots / 2) + 1;
    size_t slot = (key * 0x9e3779b97f4a7c15u) >> 46;
    while (slots[slot].key != 0 && slots[slot].key != key) slot = (slot + 1) % kSlots;
    found += slots[slot].key == key;
    slots[slot].key = key;
    slots[slot].value += i;
  }
  return mix(found, slots[12345].value);
}

struct TreeNode {
  uint64_t key;
  struct TreeNode *left, *right;
};

static uint64_t sum_of_tree(const struct TreeNode* node, uint64_t depth) {
  return node ? node->key * depth + sum_of_tree(node->left, depth + 1) + sum_of_tree(node->right, depth + 1) : 0;
}

// A binary search tree without balance: 20,000 insertions, look-ups, a walk over all of it.
static uint64_t tree_walk(uint64_t count) {
  enum { kNodes = 20000 };
  static struct TreeNode nodes[kNodes];
  uint64_t state = 17, result = 0;
  for (uint64_t round = 0; round < count; round++) {
    struct TreeNode* root = NULL;
    for (int i = 0; i < kNodes; i++) {
      struct TreeNode** at = &root;
      nodes[i] = (struct TreeNode){next_random(&state), NULL, NULL};
      while (*at) at = nodes[i].key < (*at)->key ? &(*at)->left : &(*at)->right;
      *at = &nodes[i];
    }
    for (int i = 0; i < kNodes; i++) {
      uint64_t key = nodes[(i * 7) % kNodes].key + (uint64_t)(i & 1);
      const struct TreeNode* node = root;
      while (node && node->key != key) node = key < node->key ? node->left : node->right;
      result += node != NULL;
    }
    result = mix(result, sum_of_tree(root, 1));
  }
  return result;
}

static char text[65536];

static void make_text(void) {
  static const char* const kWords[] = {"guest",      "host",   "page", "a",  "the",  "register", "of",
                                       "translates", "memory", "exit", "12", "4096", "and",      "x-1"};
  uint64_t state = 19;
  size_t at = 0;
  while (at < sizeof text - 32) {
    const char* word = kWords[next_random(&state) % (sizeof kWords / sizeof *kWords)];
    size_t size = strlen(word);
    memcpy(text + at, word, size);
    at += size;
    text[at++] = next_random(&state) % 9 ? ' ' : '\n';
  }
  text[at] = 0;
}

// Byte-wise: lines, words, numbers, a naive search.
static uint64_t string_scan(uint64_t count) {
  uint64_t result = 0;
  make_text();
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    uint64_t lines = 0, words = 0, numbers = 0, hits = 0;
    int in_word = 0;
    const char* needle = round & 1 ? "memory exit" : "the page";
    for (const char* p = text; *p; p++) {
      lines += *p == '\n';
      int blank = *p == ' ' || *p == '\n';
      words += !blank && !in_word;
      in_word = !blank;
      if (*p >= '0' && *p <= '9') numbers = numbers * 10 + (uint64_t)(*p - '0');
      const char *a = p, *b = needle;
      while (*b && *a == *b) a++, b++;
      hits += !*b;
    }
    result = mix(result, lines * 3 + words * 5 + numbers + hits);
  }
  return result;
}

// A scanner's table: identifiers, numbers with a fraction, operators, blanks, errors.
static uint64_t state_machine(uint64_t count) {
  enum { kStates = 8, kClasses = 6 };
  static unsigned char table[kStates][kClasses], class_of[256];
  uint64_t accepted[kStates] = {0}, result = 0;
  make_text();
  for (int c = 0; c < 256; c++) {
    class_of[c] = c >= 'a' && c <= 'z' ? 0 : c >= '0' && c <= '9' ? 1 : c == ' ' ? 2 : c == '\n' ? 3 : c == '-' ? 4 : 5;
  }
  for (int s = 0; s < kStates; s++) {
    for (int c = 0; c < kClasses; c++) table[s][c] = (unsigned char)((s * 5 + c * 3 + (s ^ c)) % kStates);
  }
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    unsigned state = round % kStates;
    for (const char* p = text; *p; p++) {
      state = table[state][class_of[(unsigned char)*p]];
      if (state == 5) accepted[state ^ (unsigned)(*p & 7)]++;
    }
    result = mix(result, state + accepted[3]);
  }
  return result;
}

// Greedy LZ77 with a hash of four bytes, and its decompressor, over the text.
static uint64_t lz_compress(uint64_t count) {
  enum { kHashBits = 13 };
  static uint32_t last[1 << kHashBits];
  static unsigned char packed[2 * sizeof text], unpacked[sizeof text];
  uint64_t result = 0;
  make_text();
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    const unsigned char* in = (const unsigned char*)text;
    size_t size = sizeof text - 64, to = 0;
    memset(last, 0, sizeof last);
    for (size_t at = 0; at < size;) {
      uint32_t four;
      memcpy(&four, in + at, 4);
      uint32_t hash = (four * 2654435761u) >> (32 - kHashBits);
      size_t candidate = last[hash], length = 0;
      last[hash] = (uint32_t)at;
      if (candidate < at && at - candidate < 65536) {
        while (length < 255 && at + length < size && in[candidate + length] == in[at + length]) length++;
      }
      if (length >= 4) {
        size_t distance = at - candidate;
        packed[to++] = (unsigned char)length, packed[to++] = (unsigned char)(distance >> 8),
        packed[to++] = (unsigned char)distance;
        at += length;
      } else {
        packed[to++] = 0, packed[to++] = in[at++];
      }
    }
    size_t out = 0;
    for (size_t i = 0; i < to;) {
      size_t length = packed[i];
      if (length == 0) {
        unpacked[out++] = packed[i + 1];
        i += 2;
      } else {
        size_t distance = (size_t)packed[i + 1] << 8 | packed[i + 2];
        for (; length > 0; length--, out++) unpacked[out] = unpacked[out - distance];
        i += 3;
      }
    }
    if (out != size || memcmp(unpacked, text, size) != 0) return 0;
    text[round % size] ^= 1;
    result = mix(result, to);
  }
  return result;
}

// A register machine with a switch: an indirect jump for every instruction of the interpreted program.
static uint64_t interpreter(uint64_t count) {
  enum { kAdd, kSubtract, kMultiply, kXor, kShift, kLoad, kStore, kJumpIfNot, kMove, kDecrement, kEnd };
  struct Instruction {
    unsigned char operation, a, b, c;
  };
  static const struct Instruction kProgram[] = {
      {kMove, 1, 0, 0},      {kAdd, 2, 1, 3},       {kXor, 3, 2, 4},      {kMultiply, 4, 3, 5}, {kStore, 4, 2, 0},
      {kShift, 5, 4, 3},     {kLoad, 6, 5, 0},      {kSubtract, 2, 6, 3}, {kAdd, 3, 6, 1},      {kXor, 5, 6, 2},
      {kDecrement, 0, 0, 0}, {kJumpIfNot, 0, 1, 0}, {kEnd, 0, 0, 0}};
  static uint64_t memory[256];
  uint64_t r[8] = {count, 2, 3, 5, 7, 11, 13, 17};
  const struct Instruction* pc = kProgram;
  for (;;) {
    const struct Instruction i = *pc++;
    switch (i.operation) {
      case kAdd:
        r[i.a] = r[i.b] + r[i.c];
        break;
      case kSubtract:
        r[i.a] = r[i.b] - r[i.c];
        break;
      case kMultiply:
        r[i.a] = r[i.b] * (r[i.c] | 1);
        break;
      case kXor:
        r[i.a] = r[i.b] ^ r[i.c];
        break;
      case kShift:
        r[i.a] = r[i.b] >> (r[i.c] & 31);
        break;
      case kLoad:
        r[i.a] = memory[r[i.b] & 255];
        break;
      case kStore:
        memory[r[i.b] & 255] = r[i.a];
        break;
      case kJumpIfNot:
        if (r[i.a]) pc = kProgram + i.b;
        break;
      case kMove:
        r[i.a] = r[i.b];
        break;
      case kDecrement:
        r[i.a] = r[i.b] - 1;
        break;
      default:
        return mix(mix(r[2], r[3]), mix(r[5], memory[7]));
    }
  }
}

struct Shape {
  uint64_t (*area)(const struct Shape*);
  uint64_t width, height;
};

static uint64_t area_of_square(const struct Shape* s) {
  return s->width * s->width;
}
static uint64_t area_of_rectangle(const struct Shape* s) {
  return s->width * s->height;
}
static uint64_t area_of_triangle(const struct Shape* s) {
  return s->width * s->height / 2;
}
static uint64_t area_of_frame(const struct Shape* s) {
  return 2 * (s->width + s->height) - 4;
}

// Calls through a table of functions over a list of objects of four kinds.
static uint64_t virtual_calls(uint64_t count) {
  enum { kShapes = 1024 };
  static uint64_t (*const kAreas[])(const struct Shape*) = {area_of_square, area_of_rectangle, area_of_triangle,
                                                            area_of_frame};
  static struct Shape shapes[kShapes];
  uint64_t state = 23, sum = 0;
  for (int i = 0; i < kShapes; i++) {
    shapes[i] = (struct Shape){kAreas[next_random(&state) & 3], next_random(&state) & 1023, next_random(&state) & 1023};
  }
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    for (int i = 0; i < kShapes; i++) sum += shapes[i].area(&shapes[i]);
    shapes[round % kShapes].width ^= sum & 7;
  }
  return sum;
}

const struct Workload kProgramWorkloads[] = {
    {"sort", "integer", 22, sort},
    {"hash_table", "integer", 600000, hash_table},
    {"tree_walk", "integer", 20, tree_walk},
    {"string_scan", "integer", 180, string_scan},
    {"state_machine", "integer", 260, state_machine},
    {"lz_compress", "integer", 130, lz_compress},
    {"interpreter", "integer", 800000, interpreter},
    {"virtual_calls", "integer", 5000, virtual_calls},
    {NULL, NULL, 0, NULL},
};
