package kafka

import (
	"bytes"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A batch comes back as it was, whatever its length, and says blocks of 64 KiB.
func TestBatchesAreCompressedInSmallBlocks(t *testing.T) {
	var c lz4Blocks
	d := kgo.DefaultDecompressor()
	for _, n := range []int{0, 1, 20, 1000, 65536, 65537, 1 << 20} {
		src := []byte(strings.Repeat(`{"s":"BTCUSDT"}`, n/15+1)[:n])
		for range 2 { // the second time with a writer that was used
			var dst bytes.Buffer
			out, codec := c.Compress(&dst, src)
			if n > 100 && codec != kgo.CodecLz4 {
				t.Fatalf("%d bytes are not compressed", n)
			}
			back, err := d.Decompress(out, codec)
			if err != nil || !bytes.Equal(back, src) {
				t.Fatalf("%d bytes came back as %d: %v", n, len(back), err)
			}
			// "LZ4 Frame Format", block maximum size: 4 is 64 KiB.
			if codec == kgo.CodecLz4 && out[5]>>4 != 4 {
				t.Errorf("the frame says blocks of kind %d", out[5]>>4)
			}
		}
	}
}
