package serve

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A token ends after its time, or after that since it was last used, or when it is revoked; nothing else is one.
func TestTokensEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		role := &Role{Name: "analyst"}
		plain, renewed := NewTokens(time.Hour, false), NewTokens(time.Hour, true)
		give := func(of *Tokens) string {
			text, err := of.Give(role)
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		a, b := give(plain), give(renewed)
		if plain.Role(b) != nil || plain.Role("") != nil || renewed.Role(a) != nil {
			t.Error("a token of others is taken")
		}
		for range 3 {
			time.Sleep(40 * time.Minute)
			if renewed.Role(b) != role {
				t.Fatal("a token that is used has ended")
			}
		}
		if plain.Role(a) != nil {
			t.Error("a token outlives its time")
		}
		time.Sleep(time.Hour + time.Second)
		if renewed.Role(b) != nil {
			t.Error("a token that nobody uses does not end")
		}
		c := give(plain)
		plain.Revoke(c)
		if plain.Role(c) != nil {
			t.Error("a revoked token is taken")
		}
	})
}

// Of too many tokens those that end first make place.
func TestTokensAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := NewTokens(time.Hour, false)
		var all []string
		for i := range tokensMax + 3 {
			text, err := tokens.Give(&Role{Name: fmt.Sprint(i)})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, text)
			time.Sleep(time.Millisecond)
		}
		for i, text := range all {
			if r := tokens.Role(text); (r == nil) != (i < 3) {
				t.Fatalf("token %d of %d: %v", i, len(all), r)
			}
		}
	})
}
