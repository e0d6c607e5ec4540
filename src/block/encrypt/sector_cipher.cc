#include "block/encrypt/sector_cipher.h"

#include <array>
#include <utility>

#include <openssl/evp.h>

namespace bulkhead::block {
namespace {

constexpr size_t kBlock = 16;

using ContextPtr = std::unique_ptr<EVP_CIPHER_CTX, void (*)(EVP_CIPHER_CTX*)>;

ContextPtr new_context() {
  return {::EVP_CIPHER_CTX_new(), &::EVP_CIPHER_CTX_free};
}

const EVP_CIPHER* cipher_of(const CipherSpec& spec) {
  if (spec.mode == CipherSpec::Mode::kXts) return spec.key_bytes == 32 ? ::EVP_aes_128_xts() : ::EVP_aes_256_xts();
  return spec.key_bytes == 16 ? ::EVP_aes_128_cbc() : ::EVP_aes_256_cbc();
}

}  // namespace

Result<CipherSpec> CipherSpec::parse(std::string_view text, uint64_t key_bytes) {
  CipherSpec spec;
  const size_t mode_at = text.find('-'), iv_at = text.find('-', mode_at + 1);
  const std::string_view mode = text.substr(0, std::min(iv_at, text.size()));
  const std::string_view iv = iv_at == std::string_view::npos ? "" : text.substr(iv_at + 1);
  if (mode == "aes-cbc") {
    spec.mode = Mode::kCbc;
  } else if (mode != "aes-xts") {
    return fail("cipher '{}': known are aes-xts and aes-cbc, with plain64, plain or essiv:sha256", text);
  }
  if (iv == "plain") {
    spec.iv = Iv::kPlain;
  } else if (iv == "essiv:sha256") {
    spec.iv = Iv::kEssivSha256;
  } else if (iv != "plain64") {
    return fail("cipher '{}': known are aes-xts and aes-cbc, with plain64, plain or essiv:sha256", text);
  }
  const bool xts = spec.mode == Mode::kXts;
  const bool fits = key_bytes == 32 || key_bytes == (xts ? 64 : 16);
  if (!fits) return fail("cipher '{}' with a key of {} bytes", text, key_bytes);
  spec.key_bytes = static_cast<uint32_t>(key_bytes);
  return spec;
}

std::string CipherSpec::name() const {
  constexpr std::array kIvs{"plain", "plain64", "essiv:sha256"};
  return fmt::format("aes-{}-{}", mode == Mode::kXts ? "xts" : "cbc", kIvs[std::to_underlying(iv)]);
}

struct SectorCipher::Context {
  ContextPtr data = new_context(), iv = new_context();  // iv: of ESSIV, else without a key
};

// A context each for those who work at the same time, copied from one that has the key.
class SectorCipher::Contexts {
 public:
  static Result<std::unique_ptr<Contexts>> make(const CipherSpec& spec, ByteSpan key, int encrypting) {
    auto contexts = std::make_unique<Contexts>();
    Context& first = contexts->first_;
    bool good =
        first.data && first.iv &&
        ::EVP_CipherInit_ex2(first.data.get(), cipher_of(spec), key.data(), nullptr, encrypting, nullptr) == 1 &&
        ::EVP_CIPHER_CTX_set_padding(first.data.get(), 0) == 1;
    if (spec.iv == CipherSpec::Iv::kEssivSha256) {
      Secret hash(32);
      good = good && ::EVP_Digest(key.data(), key.size(), hash.bytes().data(), nullptr, ::EVP_sha256(), nullptr) == 1 &&
             ::EVP_CipherInit_ex2(first.iv.get(), ::EVP_aes_256_ecb(), hash.bytes().data(), nullptr, 1, nullptr) == 1 &&
             ::EVP_CIPHER_CTX_set_padding(first.iv.get(), 0) == 1;
    }
    if (!good) return fail("{} with this key is refused by libcrypto", spec.name());
    return contexts;
  }
  std::unique_ptr<Context> take() {
    {
      const LockGuard lock(mutex_);
      if (!free_.empty()) {
        auto context = std::move(free_.back());
        free_.pop_back();
        return context;
      }
    }
    auto context = std::make_unique<Context>();
    const bool essiv = ::EVP_CIPHER_CTX_get0_cipher(first_.iv.get()) != nullptr;
    if (!context->data || !context->iv || ::EVP_CIPHER_CTX_copy(context->data.get(), first_.data.get()) != 1 ||
        (essiv && ::EVP_CIPHER_CTX_copy(context->iv.get(), first_.iv.get()) != 1)) {
      return nullptr;
    }
    return context;
  }
  void give_back(std::unique_ptr<Context> context) {
    const LockGuard lock(mutex_);
    free_.push_back(std::move(context));
  }

 private:
  Context first_;
  Mutex mutex_;
  std::vector<std::unique_ptr<Context>> free_ GUARDED_BY(mutex_);
};

SectorCipher::SectorCipher(const CipherSpec& spec, uint32_t sector_size) : spec_(spec), sector_size_(sector_size) {}

SectorCipher::~SectorCipher() = default;

Result<std::unique_ptr<SectorCipher>> SectorCipher::make(const CipherSpec& spec, ByteSpan key, uint32_t sector_size) {
  CHECK(key.size() == spec.key_bytes, "a key of another size than its cipher's");
  std::unique_ptr<SectorCipher> cipher(new SectorCipher(spec, sector_size));
  cipher->encrypting_ = TRY(Contexts::make(spec, key, 1));
  cipher->decrypting_ = TRY(Contexts::make(spec, key, 0));
  return cipher;
}

Status SectorCipher::apply(const std::unique_ptr<Contexts>& contexts, uint64_t number, ByteSpan from,
                           MutableByteSpan to) const {
  CHECK(from.size() == to.size() && from.size() % sector_size_ == 0, "half a sector for a cipher");
  auto context = contexts->take();
  if (!context) return Status::kIoError;
  bool good = true;
  for (size_t at = 0; at < from.size() && good; at += sector_size_) {
    std::array<uint8_t, kBlock> iv{};
    const uint64_t sector = number + at / kCipherSector;
    if (spec_.iv == CipherSpec::Iv::kPlain) {
      store(iv.data(), static_cast<uint32_t>(sector));
    } else {
      store(iv.data(), sector);
    }
    int size = 0;
    if (spec_.iv == CipherSpec::Iv::kEssivSha256) {
      std::array<uint8_t, kBlock> hidden{};
      good = ::EVP_CipherUpdate(context->iv.get(), hidden.data(), &size, iv.data(), kBlock) == 1;
      iv = hidden;
    }
    good = good && ::EVP_CipherInit_ex2(context->data.get(), nullptr, nullptr, iv.data(), -1, nullptr) == 1 &&
           ::EVP_CipherUpdate(context->data.get(), to.data() + at, &size, from.data() + at,
                              static_cast<int>(sector_size_)) == 1 &&
           size == static_cast<int>(sector_size_);
  }
  contexts->give_back(std::move(context));
  return good ? Status::kOk : Status::kIoError;
}

}  // namespace bulkhead::block
