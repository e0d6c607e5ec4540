#include "support/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include "support/check.h"

namespace bulkhead {

struct Sha256::Context {
  EVP_MD_CTX* digest = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(digest); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  CHECK(EVP_DigestInit_ex(context_->digest, EVP_sha256(), nullptr) == 1, "libcrypto has SHA-256");
}

Sha256::~Sha256() = default;

Sha256& Sha256::update(ByteSpan bytes) {
  CHECK(EVP_DigestUpdate(context_->digest, bytes.data(), bytes.size()) == 1, "a digest under way takes bytes");
  return *this;
}

std::string Sha256::finish() {
  std::array<uint8_t, 32> digest{};
  CHECK(EVP_DigestFinal_ex(context_->digest, digest.data(), nullptr) == 1, "a digest under way can be finished");
  std::string text;
  for (const uint8_t byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace bulkhead
