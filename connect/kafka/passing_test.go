package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What a broker has sent does not change when it is asked again; that a broker is away does.
func TestPassing(t *testing.T) {
	for _, err := range []error{
		kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, io.EOF, context.DeadlineExceeded,
		&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, &net.DNSError{Err: "no such host", Name: "kafka"},
		fmt.Errorf("unable to dial: %w", &net.OpError{Op: "dial", Err: context.DeadlineExceeded}),
	} {
		if !passing(err) {
			t.Errorf("%v does not pass", err)
		}
	}
	for _, err := range []error{
		kerr.TopicAuthorizationFailed, kerr.UnknownTopicID, kgo.ErrClientClosed, &kgo.ErrDecompressTooLarge{}, &kgo.ErrDataLoss{},
		errors.New("encoded crc 1 does not match calculated crc 2"), errors.New("unknown magic 7; message offset is 3 and length is 9, skipping"),
		&tls.CertificateVerificationError{Err: errors.New("expired")},
	} {
		if passing(err) {
			t.Errorf("%v passes", err)
		}
	}
}
