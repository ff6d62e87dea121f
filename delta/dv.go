package delta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/google/uuid"

	"github.com/cauce-data/cauce/objstore"
)

// Constants of the deletion vector formats (PROTOCOL.md, "Deletion Vector Format" and "Deletion Vector File Storage
// Format").
const (
	dvMagic       = 1681511377 // 64-bit portable roaring
	dvMagicNative = 1681511376 // Spark's first, never released format
	dvFileVersion = 1
	dvBytesMax    = math.MaxInt32 // sizeInBytes and offset are 32-bit
)

// ErrBadVector is the class of errors about a deletion vector that cannot be read: wrong size, checksum, encoding or
// cardinality.
var ErrBadVector = errors.New("corrupt deletion vector")

func badVector(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBadVector, fmt.Sprintf(format, args...))
}

// EncodeVector serialises a set of row numbers as the body of a deletion vector: magic number and 64-bit roaring
// bitmap in the portable format, little-endian.
func EncodeVector(rows *roaring64.Bitmap) ([]byte, error) {
	rows.RunOptimize()
	var buf bytes.Buffer
	buf.Grow(int(rows.GetSerializedSizeInBytes()) + 4)
	var magic [4]byte
	binary.LittleEndian.PutUint32(magic[:], dvMagic)
	buf.Write(magic[:])
	if _, err := rows.WriteTo(&buf); err != nil {
		return nil, fmt.Errorf("deletion vector: %w", err)
	}
	if buf.Len() > dvBytesMax {
		return nil, fmt.Errorf("deletion vector of %d bytes is larger than the protocol allows", buf.Len())
	}
	return buf.Bytes(), nil
}

// InlineVector is a descriptor that holds the rows itself (PROTOCOL.md, "Deletion Vector Descriptor Schema", storage type
// "i"). It must not be in use elsewhere; nil or empty gives nil.
func InlineVector(rows *roaring64.Bitmap) (*DeletionVector, error) {
	if rows == nil || rows.IsEmpty() {
		return nil, nil
	}
	body, err := EncodeVector(rows)
	if err != nil {
		return nil, err
	}
	return &DeletionVector{StorageType: "i", PathOrInlineDv: encodeZ85(body), SizeInBytes: int32(len(body)), Cardinality: int64(rows.GetCardinality())}, nil
}

// DecodeVector reads what EncodeVector writes. The bytes may come from anywhere.
func DecodeVector(body []byte) (rows *roaring64.Bitmap, err error) {
	if len(body) < 12 {
		return nil, badVector("%d bytes are too few", len(body))
	}
	switch magic := binary.LittleEndian.Uint32(body); magic {
	case dvMagic:
	case dvMagicNative:
		return nil, &UnsupportedError{What: "deletion vector format", Names: []string{"native roaring"}}
	default:
		return nil, badVector("magic number %d", magic)
	}
	body = body[4:]
	// The library trusts the number of 32-bit bitmaps; each needs at least a key and a header.
	count := binary.LittleEndian.Uint64(body)
	if count > uint64(len(body))/8 {
		return nil, badVector("%d bitmaps in %d bytes", count, len(body))
	}
	defer func() {
		// Foreign bytes must not be able to end the process through a bound the library does not check.
		if r := recover(); r != nil {
			rows, err = nil, badVector("%v", r)
		}
	}()
	rows = roaring64.New()
	if _, err := rows.ReadFrom(bytes.NewReader(body)); err != nil {
		return nil, badVector("%v", err)
	}
	if count > 0 {
		if err := rows.Validate(); err != nil {
			return nil, badVector("%v", err)
		}
	}
	return rows, nil
}

// VectorKey gives the key in the table's store of a deletion vector; "" of one that the log itself holds.
func (i TableInfo) VectorKey(d *DeletionVector) (string, error) {
	if d == nil || d.StorageType == "i" {
		return "", nil
	}
	return vectorPlace(i, d)
}

// vectorPlace says where the bytes of a vector are: inline, or in an object.
func vectorPlace(table TableInfo, d *DeletionVector) (key string, err error) {
	switch d.StorageType {
	case "u":
		if len(d.PathOrInlineDv) < 20 {
			return "", badVector("path %q is shorter than a UUID", d.PathOrInlineDv)
		}
		cut := len(d.PathOrInlineDv) - 20
		raw, err := decodeZ85(d.PathOrInlineDv[cut:])
		if err != nil {
			return "", err
		}
		id, err := uuid.FromBytes(raw)
		if err != nil {
			return "", badVector("path %q: %v", d.PathOrInlineDv, err)
		}
		key := "deletion_vector_" + id.String() + ".bin"
		if cut > 0 {
			key = d.PathOrInlineDv[:cut] + "/" + key
		}
		return joinKey(table.Path, key), nil
	case "p":
		return table.FileKey(d.PathOrInlineDv)
	}
	return "", badVector("storage type %q", d.StorageType)
}

// LoadVector reads the rows that a descriptor marks. nil gives nil.
func LoadVector(ctx context.Context, table TableInfo, d *DeletionVector) (*roaring64.Bitmap, error) {
	if d == nil {
		return nil, nil
	}
	if d.SizeInBytes < 0 {
		return nil, badVector("size %d", d.SizeInBytes)
	}
	var body []byte
	if d.StorageType == "i" {
		raw, err := decodeZ85(d.PathOrInlineDv)
		if err != nil {
			return nil, err
		}
		if int(d.SizeInBytes) > len(raw) {
			return nil, badVector("inline vector has %d bytes, not %d", len(raw), d.SizeInBytes)
		}
		body = raw[:d.SizeInBytes] // Z85 pads to a multiple of four
	} else {
		key, err := vectorPlace(table, d)
		if err != nil {
			return nil, err
		}
		offset := int64(1) // the version byte, when a whole file is one vector
		if d.Offset != nil {
			offset = int64(*d.Offset)
		}
		if offset < 0 {
			return nil, badVector("%s: offset %d", key, offset)
		}
		frame, err := table.Store.GetRange(ctx, key, offset, int64(d.SizeInBytes)+8)
		if err != nil {
			return nil, fmt.Errorf("deletion vector: %w", err)
		}
		body, err = unframeVector(frame, int(d.SizeInBytes))
		if err != nil {
			return nil, fmt.Errorf("%s at %d: %w", key, offset, err)
		}
	}
	rows, err := DecodeVector(body)
	if err != nil {
		return nil, err
	}
	if n := rows.GetCardinality(); n != uint64(d.Cardinality) {
		return nil, badVector("%d rows, but the log says %d", n, d.Cardinality)
	}
	return rows, nil
}

// frameVector is a body as it stands in a file: size big-endian, body, CRC-32 big-endian.
func frameVector(body []byte) []byte {
	out := make([]byte, 0, len(body)+8)
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	out = append(out, body...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(body))
}

func unframeVector(frame []byte, size int) ([]byte, error) {
	if len(frame) != size+8 {
		return nil, badVector("%d bytes where %d should be", len(frame), size+8)
	}
	if got := binary.BigEndian.Uint32(frame); got != uint32(size) {
		return nil, badVector("size %d in the file, %d in the log", got, size)
	}
	body := frame[4 : 4+size]
	if want, got := binary.BigEndian.Uint32(frame[4+size:]), crc32.ChecksumIEEE(body); want != got {
		return nil, badVector("checksum %08x, should be %08x", got, want)
	}
	return body, nil
}

// writeVectors stores any number of vectors in one new object below the table's root, so that a commit costs one
// write however many files it marks rows in. The descriptors are in the order of the vectors. key is "" when there
// was nothing to write.
func writeVectors(ctx context.Context, table TableInfo, newID func() string, vectors []*roaring64.Bitmap) (key string, out []*DeletionVector, err error) {
	if len(vectors) == 0 {
		return "", nil, nil
	}
	id, err := uuid.Parse(newID())
	if err != nil {
		return "", nil, fmt.Errorf("deletion vector: %w", err)
	}
	name := encodeZ85(id[:])
	data := []byte{dvFileVersion}
	for _, v := range vectors {
		body, err := EncodeVector(v)
		if err != nil {
			return "", nil, err
		}
		if len(data)+len(body) > dvBytesMax-8 {
			return "", nil, fmt.Errorf("deletion vectors of one commit exceed %d bytes", dvBytesMax)
		}
		offset := int32(len(data))
		out = append(out, &DeletionVector{
			StorageType: "u", PathOrInlineDv: name, Offset: &offset,
			SizeInBytes: int32(len(body)), Cardinality: int64(v.GetCardinality()),
		})
		data = append(data, frameVector(body)...)
	}
	key = joinKey(table.Path, "deletion_vector_"+id.String()+".bin")
	if err := table.Store.Put(ctx, key, bytes.NewReader(data), objstore.PutOptions{}); err != nil {
		return "", nil, fmt.Errorf("deletion vector: %w", err)
	}
	return key, out, nil
}

// joinKey joins a folder of the store, which may be "", and a key below it.
func joinKey(folder, key string) string {
	if folder == "" {
		return key
	}
	return folder + "/" + key
}

// Z85 (https://rfc.zeromq.org/spec/32): four bytes in five printable characters.
const z85Digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

var z85Values = func() (v [256]uint8) {
	for i := range v {
		v[i] = 255
	}
	for i := range len(z85Digits) {
		v[z85Digits[i]] = uint8(i)
	}
	return v
}()

// encodeZ85 pads with zero bytes to a multiple of four.
func encodeZ85(b []byte) string {
	var sb strings.Builder
	for len(b) > 0 {
		var word [4]byte
		b = b[copy(word[:], b):]
		v := binary.BigEndian.Uint32(word[:])
		var chars [5]byte
		for i := 4; i >= 0; i-- {
			chars[i] = z85Digits[v%85]
			v /= 85
		}
		sb.Write(chars[:])
	}
	return sb.String()
}

func decodeZ85(s string) ([]byte, error) {
	if len(s)%5 != 0 {
		return nil, badVector("Z85 text of %d characters", len(s))
	}
	out := make([]byte, 0, len(s)/5*4)
	for i := 0; i < len(s); i += 5 {
		var v uint64
		for j := range 5 {
			d := z85Values[s[i+j]]
			if d == 255 {
				return nil, badVector("character %q is not Z85", s[i+j])
			}
			v = v*85 + uint64(d)
		}
		if v > math.MaxUint32 {
			return nil, badVector("Z85 group %q is too large", s[i:i+5])
		}
		out = binary.BigEndian.AppendUint32(out, uint32(v))
	}
	return out, nil
}
