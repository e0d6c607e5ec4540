// Runs a fuzz target over every file of its corpus, so that past findings stay found in builds without libFuzzer.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argument_count, char** arguments) {
  size_t input_count = 0;
  for (int i = 1; i < argument_count; ++i) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(arguments[i], error)) {
      std::ifstream file(entry.path(), std::ios::binary);
      std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
      LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
      ++input_count;
    }
    if (error) {
      std::fprintf(stderr, "corpus '%s': %s\n", arguments[i], error.message().c_str());
      return 1;
    }
  }
  // An empty input is part of every corpus, so that a target without one is still run.
  LLVMFuzzerTestOneInput(nullptr, 0);
  std::printf("%zu corpus inputs replayed\n", input_count + 1);
  return 0;
}
