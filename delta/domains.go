package delta

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// systemDomain is the prefix of domains that only the protocol's features may change.
const systemDomain = "delta."

// SetDomain gives a domain of one's own its metadata: text that lives in the table's log and means something to whoever
// knows the domain (PROTOCOL.md, "Domain Metadata"). Domains whose name begins with "delta." are the features' own:
// ErrDomain. The protocol is raised where it lacks domain metadata. Of writers who set one domain at the same time one
// wins; the others get ErrMetadataChanged, for only they know whether what they read still holds.
func (t *Table) SetDomain(ctx context.Context, domain, configuration string) (Version, error) {
	return t.changeDomain(ctx, domain, func(*Snapshot) (*DomainMetadata, error) {
		return &DomainMetadata{Domain: domain, Configuration: configuration}, nil
	})
}

// RemoveDomain removes the metadata of a domain of one's own. A table without it stays as it is.
func (t *Table) RemoveDomain(ctx context.Context, domain string) (Version, error) {
	return t.changeDomain(ctx, domain, func(s *Snapshot) (*DomainMetadata, error) {
		d, ok := s.Domain(domain)
		if !ok {
			return nil, nil //nolint:nilnil // nothing to do is no error
		}
		d.Removed = true // with the configuration that it had
		return &d, nil
	})
}

func (t *Table) changeDomain(ctx context.Context, domain string, plan func(*Snapshot) (*DomainMetadata, error)) (Version, error) {
	if domain == "" || strings.HasPrefix(domain, systemDomain) {
		return 0, fmt.Errorf("domain %q of %s: %w: choose a name of your own, such as com.example.app", domain, t, ErrDomain)
	}
	s, err := t.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	for try := 1; ; try++ {
		d, err := plan(s)
		if err != nil {
			return 0, err
		}
		if d == nil {
			return s.version, nil
		}
		x := t.Begin(s)
		if up := s.protocol.raised(featureOf("domainMetadata")); up != nil {
			x.SetProtocol(*up)
		}
		x.SetDomain(*d)
		done, err := x.Commit(ctx, CommitOptions{Operation: "SET DOMAIN METADATA", Parameters: map[string]string{"domain": domain}})
		// Somebody else has raised the protocol or changed the schema: that is not about the domain.
		if errors.Is(err, ErrConflict) && try < t.opts.MaxTries {
			newer, serr := t.Snapshot(ctx)
			if serr != nil {
				return 0, serr
			}
			was, _ := s.Domain(domain)
			if now, _ := newer.Domain(domain); now == was {
				s = newer
				if err = t.pause(ctx, try); err == nil {
					continue
				}
			}
		}
		if err != nil {
			return 0, fmt.Errorf("domain %s of %s: %w", domain, t, err)
		}
		return done.Version, nil
	}
}
