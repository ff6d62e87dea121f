package pipeline

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Tombstones says how a message without value becomes a deletion. Such a message has nothing but its key and its time, so
// that these stand for the raw fields of the record.
type Tombstones struct {
	// Key is the raw field that the message's key becomes; "": the key is a JSON object, whose members are the raw fields.
	Key string
	// Time is the raw field that the message's time becomes, in ms since 1970; "": none.
	Time string
}

// RawTombstone is the name under which a plan refers to whether a record is a deletion because it has no value: the text
// "true", else null. No message can say so of itself.
const RawTombstone = "\x00tombstone"

// Object gives the text of the JSON object that holds a record's raw fields, and tells whether the record is a deletion
// because it has no value. The error says why the record has no such object; a text that is no object is left to the
// reader of the text.
func (s *Source) Object(r *Record) (text []byte, tombstone bool, err error) {
	switch {
	case r.Bad != "":
		return nil, false, errors.New(r.Bad)
	case r.Value != nil || s.Kafka == nil || s.Kafka.Tombstones == nil:
		if r.Value != nil && r.Text != nil {
			return r.Text, false, nil
		}
		return r.Value, false, nil
	case r.Key == nil:
		return nil, false, errors.New("the message has neither value nor key")
	}
	t := s.Kafka.Tombstones
	key := r.Text
	if key == nil && t.Key == "" {
		key = r.Key
	} else if key == nil {
		if !utf8.Valid(r.Key) {
			return nil, false, errors.New("the message has no value, and its key is no valid UTF-8")
		}
		if key, err = json.Marshal(string(r.Key)); err != nil {
			return nil, false, err
		}
	}
	text = []byte{'{'}
	if t.Time != "" {
		if r.Time.IsZero() { // it went to quarantine before that kept times
			return nil, false, errors.New("the message has no value, and its time is not known; reading it again needs the topic")
		}
		text = append(strconv.AppendInt(append(appendName(text, t.Time), ':'), r.Time.UnixMilli(), 10), ',')
	}
	if t.Key != "" {
		return append(append(append(appendName(text, t.Key), ':'), key...), '}'), true, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(key, &members); err != nil || members == nil {
		return nil, false, errors.New("the message has no value, and its key is no JSON object; kafka.tombstones.key names the raw field for a key that is plain text")
	}
	if len(members) == 0 {
		return append([]byte(strings.TrimSuffix(string(text), ",")), '}'), true, nil
	}
	// Of a name that occurs twice the last one counts: what the key itself says.
	inner := strings.TrimSpace(string(key))
	return append(text, inner[1:]...), true, nil
}

func appendName(b []byte, name string) []byte {
	text, err := json.Marshal(name)
	if err != nil {
		panic("BUG: a text is no JSON: " + err.Error())
	}
	return append(b, text...)
}
