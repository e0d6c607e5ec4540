// An encrypted image: a LUKS1 header in clusters of its own; guest clusters are encrypted by where they lie in the
// file, in sectors of 512 bytes. Tables are not encrypted, nor can an encrypted cluster be compressed.
#include "block/encrypt/hidden_store.h"
#include "block/format/luks/volume_key.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {

Result<> Qcow2Image::unlock(DiskKey* key) {
  const luks::Header header = TRY(luks::read_header(*store_, header_.crypto_offset, header_.crypto_length));
  cipher_name_ = header.cipher.name();
  if (key == nullptr) {
    cipher_ = locked(store_->name());
    return {};
  }
  const Secret found = TRY(luks::unlock(*store_, header_.crypto_offset, header, *key));
  auto cipher = TRY(SectorCipher::make(header.cipher, found.bytes(), kCipherSector));
  cipher_ = std::make_unique<CipherStore>(data_file_ ? *data_file_ : *store_, std::move(cipher), 0, 0);
  return {};
}

Result<> write_crypto(Store& store, const Header& header, DiskKey& key, Settings& settings) {
  const luks::NewVolume made = TRY(luks::make_volume(store, header.crypto_offset, 1, key.passphrase(), settings));
  return store.write_all(header.crypto_offset, luks::make1(made.header));
}

}  // namespace bulkhead::block::qcow2
