package kafka

import (
	"bytes"
	"errors"
	"sync"

	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// lz4Blocks compresses batches with lz4 in blocks of 64 KiB, as Kafka's Java client does. The client's own compressor says
// blocks of 4 MiB: whoever writes or reads such a batch, however short it is, takes as much memory, several times over.
type lz4Blocks struct{ writers sync.Pool }

// Compress implements kgo.Compressor. What does not get shorter stays as it is.
func (c *lz4Blocks) Compress(dst *bytes.Buffer, src []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	w, ok := c.writers.Get().(*lz4.Writer)
	if !ok {
		w = lz4.NewWriter(nil)
		if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb)); err != nil {
			return src, kgo.CodecNone
		}
	}
	defer c.writers.Put(w)
	w.Reset(dst)
	_, err := w.Write(src)
	if err = errors.Join(err, w.Close()); err != nil || dst.Len() >= len(src) {
		return src, kgo.CodecNone
	}
	return dst.Bytes(), kgo.CodecLz4
}
