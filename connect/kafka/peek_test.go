package kafka

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cauce-data/cauce/pipeline"
)

// quotaBroker is the one broker of a cluster with one topic of one partition, which holds nothing but markers of transactions.
// It answers a request for them only when it has refused some for a quota.
type quotaBroker struct {
	t       *testing.T
	addr    *net.TCPAddr
	markers int
	refuse  atomic.Int32
	fetches atomic.Int32
}

func newQuotaBroker(t *testing.T, markers int) *quotaBroker {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	b := &quotaBroker{t: t, addr: ln.Addr().(*net.TCPAddr), markers: markers}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go b.serve(c)
		}
	}()
	return b
}

// marker is a batch that ends a transaction, as a log holds it.
func marker(offset int64) []byte {
	r := kmsg.Record{Key: []byte{0, 0, 0, 1}, Value: make([]byte, 6)}
	r.Length = int32(len(r.AppendTo(nil)) - 1)
	batch := kmsg.RecordBatch{
		FirstOffset: offset, PartitionLeaderEpoch: -1, Magic: 2, Attributes: 1<<4 | 1<<5, ProducerID: 1, FirstSequence: -1, NumRecords: 1, Records: r.AppendTo(nil),
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

func (b *quotaBroker) serve(c net.Conn) {
	defer c.Close()
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		in := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(c, in); err != nil {
			return
		}
		key, version := int16(binary.BigEndian.Uint16(in)), int16(binary.BigEndian.Uint16(in[2:]))
		body := in[10+binary.BigEndian.Uint16(in[8:]):]
		var resp kmsg.Response
		switch kmsg.Key(key) {
		case kmsg.ApiVersions:
			r := kmsg.NewPtrApiVersionsResponse()
			for k, most := range map[kmsg.Key]int16{kmsg.ApiVersions: 2, kmsg.Metadata: 8, kmsg.Fetch: 11} {
				r.ApiKeys = append(r.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: int16(k), MaxVersion: most})
			}
			resp = r
		case kmsg.Metadata:
			r, name := kmsg.NewPtrMetadataResponse(), "t"
			r.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 1, Host: "127.0.0.1", Port: int32(b.addr.Port)}}
			r.Topics = []kmsg.MetadataResponseTopic{{Topic: &name, Partitions: []kmsg.MetadataResponseTopicPartition{{Leader: 1, Replicas: []int32{1}, ISR: []int32{1}}}}}
			resp = r
		case kmsg.Fetch:
			req, r := kmsg.NewPtrFetchRequest(), kmsg.NewPtrFetchResponse()
			req.Version = version
			if err := req.ReadFrom(body); err != nil {
				b.t.Error(err)
				return
			}
			b.fetches.Add(1)
			if resp = r; b.refuse.Add(-1) >= 0 {
				r.ThrottleMillis = 20
				break
			}
			asked := req.Topics[0].Partitions[0]
			p := kmsg.FetchResponseTopicPartition{HighWatermark: int64(b.markers), LastStableOffset: int64(b.markers), PreferredReadReplica: -1}
			for at := asked.FetchOffset; at < int64(b.markers); at++ {
				m := marker(at)
				if n := len(p.RecordBatches); n > 0 && n+len(m) > int(asked.PartitionMaxBytes) {
					break
				}
				p.RecordBatches = append(p.RecordBatches, m...)
			}
			r.Topics = []kmsg.FetchResponseTopic{{Topic: "t", Partitions: []kmsg.FetchResponseTopicPartition{p}}}
		default:
			b.t.Errorf("request %d", key)
			return
		}
		resp.SetVersion(version)
		out := append(make([]byte, 4), in[4:8]...)
		out = resp.AppendTo(out)
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// A broker that answers nothing because of a quota is asked again, and thousands of markers are passed in a few requests.
func TestPeekPassesQuotasAndMarkers(t *testing.T) {
	b := newQuotaBroker(t, 20_000)
	c := Config{Brokers: []string{b.addr.String()}}
	cl, adm, err := admin(c)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	s := &Source{c: c, o: SourceOptions{Topic: "t"}, admClient: cl, adm: adm, at: map[int32]pipeline.Position{0: {Offset: -1}}}
	b.refuse.Store(2)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	drained, err := s.Drained(ctx, map[int32]int64{0: int64(b.markers) - 1})
	if n := b.fetches.Load(); err != nil || !drained || n > 10 {
		t.Errorf("drained is %t after %d requests, %v", drained, n, err)
	}
	s.left = []pipeline.Record{{Offset: int64(b.markers) - 1}}
	if drained, err := s.Drained(ctx, map[int32]int64{0: int64(b.markers) - 1}); err != nil || drained {
		t.Errorf("a record is here that Fetch has not given: drained is %t, %v", drained, err)
	}
}
