package serve

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Settings are the run-time parameters of a session, those of PostgreSQL that clients set or ask for. A change inside a
// transaction is undone with it.
type Settings struct {
	values map[string]string // what was set, by lower-case name
	saved  map[string]string // when the transaction began; nil: there is none
	local  map[string]string // what SET LOCAL hides until the transaction's end
	role   string
}

// ServerVersion is the version of PostgreSQL whose catalogue and behaviour clients may expect.
const ServerVersion = "15.18"

// parameter is one that is known: its default, and whether it may be set.
type parameter struct {
	def   string
	fixed bool
	// report tells the client of each change (ParameterStatus).
	report bool
	name   string // as it is reported
	check  func(string) (string, bool)
}

var parameters = map[string]*parameter{
	"server_version":                      {def: ServerVersion, fixed: true, report: true},
	"server_version_num":                  {def: "150018", fixed: true},
	"server_encoding":                     {def: "UTF8", fixed: true, report: true},
	"client_encoding":                     {def: "UTF8", report: true, check: utf8Only},
	"application_name":                    {def: "", report: true},
	"datestyle":                           {def: "ISO, MDY", report: true, name: "DateStyle", check: isoStyle},
	"intervalstyle":                       {def: "postgres", report: true, name: "IntervalStyle", check: oneOf("postgres")},
	"timezone":                            {def: "UTC", report: true, name: "TimeZone", check: zone},
	"integer_datetimes":                   {def: "on", fixed: true, report: true},
	"is_superuser":                        {def: "off", fixed: true, report: true},
	"standard_conforming_strings":         {def: "on", report: true, check: oneOf("on")},
	"default_transaction_read_only":       {def: "on", report: true, check: boolean},
	"in_hot_standby":                      {def: "off", fixed: true, report: true},
	"transaction_read_only":               {def: "on", check: boolean},
	"transaction_isolation":               {def: "repeatable read", check: level},
	"default_transaction_isolation":       {def: "repeatable read", check: level},
	"transaction_deferrable":              {def: "off", check: boolean},
	"default_transaction_deferrable":      {def: "off", check: boolean},
	"search_path":                         {def: `"$user", public`},
	"statement_timeout":                   {def: "0", check: milliseconds},
	"lock_timeout":                        {def: "0", check: milliseconds},
	"idle_in_transaction_session_timeout": {def: "0", check: milliseconds},
	"extra_float_digits":                  {def: "1"},
	"bytea_output":                        {def: "hex", check: oneOf("hex")},
	"client_min_messages":                 {def: "notice"},
	"jit":                                 {def: "off"},
	"row_security":                        {def: "on"},
	"escape_string_warning":               {def: "on"},
	"backslash_quote":                     {def: "safe_encoding"},
	"geqo":                                {def: "on"},
	"ksqo":                                {def: "off"},
	"enable_seqscan":                      {def: "on"},
	"synchronous_commit":                  {def: "on"},
	"max_identifier_length":               {def: "63", fixed: true},
	"max_index_keys":                      {def: "32", fixed: true},
	"max_connections":                     {def: "100", fixed: true},
	"block_size":                          {def: "8192", fixed: true},
	"lc_collate":                          {def: "C.UTF-8", fixed: true},
	"lc_ctype":                            {def: "C.UTF-8", fixed: true},
	"lc_messages":                         {def: "C.UTF-8"},
	"lc_monetary":                         {def: "C.UTF-8"},
	"lc_numeric":                          {def: "C.UTF-8"},
	"lc_time":                             {def: "C.UTF-8"},
	"port":                                {def: "5432", fixed: true},
	"ssl":                                 {def: "off", fixed: true},
	"wal_level":                           {def: "replica", fixed: true},
	"work_mem":                            {def: "4MB"},
	"session_authorization":               {def: "", fixed: true},
	"default_tablespace":                  {def: ""},
	"default_table_access_method":         {def: "heap"},
	"temp_tablespaces":                    {def: ""},
	"xmlbinary":                           {def: "base64"},
	"xmloption":                           {def: "content"},
	"password_encryption":                 {def: "scram-sha-256", fixed: true},
	"krb_caseins_users":                   {def: "off", fixed: true},
	"data_directory":                      {def: "", fixed: true},
	"tcp_keepalives_idle":                 {def: "0"},
	"gin_fuzzy_search_limit":              {def: "0"},
	"quote_all_identifiers":               {def: "off"},
	"default_with_oids":                   {def: "off"},
}

// UTF8 tells the names of the encoding that there is.
func UTF8(name string) bool {
	_, ok := utf8Only(name)
	return ok
}

func utf8Only(v string) (string, bool) {
	// PostgreSQL looks at letters and digits alone: 'utf-8', in quotes, is what asyncpg sends.
	name := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToUpper(r)
		}
		return -1
	}, v)
	switch name {
	case "UTF8", "UNICODE", "DEFAULT":
		return "UTF8", true
	case "SQLASCII":
		return "SQL_ASCII", true
	}
	return "", false
}

func isoStyle(v string) (string, bool) {
	up := strings.ToUpper(v)
	switch {
	case strings.Contains(up, "SQL") || strings.Contains(up, "GERMAN") || strings.Contains(up, "POSTGRES"):
		return "", false
	case strings.Contains(up, "DMY"):
		return "ISO, DMY", true
	case strings.Contains(up, "YMD"):
		return "ISO, YMD", true
	}
	return "ISO, MDY", true
}

func oneOf(all ...string) func(string) (string, bool) {
	return func(v string) (string, bool) {
		v = strings.ToLower(v)
		return v, slices.Contains(all, v)
	}
}

func boolean(v string) (string, bool) {
	switch strings.ToLower(v) {
	case "on", "true", "yes", "1", "t", "y":
		return "on", true
	case "off", "false", "no", "0", "f", "n":
		return "off", true
	}
	return "", false
}

func level(v string) (string, bool) {
	v = strings.ToLower(v)
	return v, slices.Contains([]string{"serializable", "repeatable read", "read committed", "read uncommitted"}, v)
}

// zone accepts the names of the time zone database, and offsets as clients write them.
func zone(v string) (string, bool) {
	switch strings.ToUpper(v) {
	case "UTC", "GMT", "Z", "ETC/UTC", "UCT", "ZULU", "DEFAULT", "LOCAL", "+00", "+00:00", "0":
		return "UTC", true
	}
	if v == "" || strings.Contains(v, "..") {
		return "", false
	}
	if _, err := time.LoadLocation(v); err != nil {
		return "", false
	}
	return v, true
}

func milliseconds(v string) (string, bool) {
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		return strconv.FormatInt(n, 10), n >= 0
	}
	d, err := time.ParseDuration(strings.ReplaceAll(strings.ReplaceAll(v, " ", ""), "min", "m"))
	return strconv.FormatInt(d.Milliseconds(), 10), err == nil && d >= 0
}

func newSettings(r *Role) *Settings { return &Settings{values: map[string]string{}, role: r.Name} }

// aliases are other spellings of parameters.
var aliases = map[string]string{"names": "client_encoding", "time zone": "timezone", "schema": "search_path", "transaction isolation level": "transaction_isolation"}

func canonical(name string) string {
	name = strings.ToLower(name)
	if a := aliases[name]; a != "" {
		return a
	}
	return name
}

// Show gives the value of a parameter.
func (s *Settings) Show(name string) (string, bool) {
	name = canonical(name)
	if v, ok := s.values[name]; ok {
		return v, true
	}
	if name == "session_authorization" {
		return s.role, true
	}
	if p := parameters[name]; p != nil {
		return p.def, true
	}
	return "", false
}

// Names lists the parameters that are known.
func (s *Settings) Names() []string {
	var out []string
	for n := range parameters {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// Set changes a parameter. Names with a dot are the client's own and take any value.
func (s *Settings) Set(name, value string, local bool) error {
	name = canonical(name)
	p := parameters[name]
	switch {
	case p == nil && strings.Contains(name, "."):
	case p == nil:
		return errorf(CodeUndefinedObject, "unrecognized configuration parameter %q", name)
	case p.fixed:
		return errorf("55P02", "parameter %q cannot be changed", name)
	case p.check != nil:
		v, ok := p.check(value)
		if !ok {
			return errorf(CodeInvalidParameter, "invalid value for parameter %q: %q", name, value)
		}
		value = v
	}
	if len(value) > 4096 || len(s.values) > 200 {
		return errorf(CodeInvalidParameter, "parameter %q: the value is too long, or too many are set", name)
	}
	if local && s.saved != nil {
		if s.local == nil {
			s.local = map[string]string{}
		}
		if _, had := s.local[name]; !had {
			s.local[name], _ = s.Show(name)
		}
	}
	s.values[name] = value
	return nil
}

// Reset gives a parameter its default; "all" means every one.
func (s *Settings) Reset(name string) error {
	name = canonical(name)
	if name == "all" {
		clear(s.values)
		return nil
	}
	if _, ok := s.Show(name); !ok {
		return errorf(CodeUndefinedObject, "unrecognized configuration parameter %q", name)
	}
	delete(s.values, name)
	return nil
}

// Save remembers the settings for a transaction. Restore brings them back (rollback) or keeps them but for those of SET
// LOCAL (commit).
func (s *Settings) Save() {
	s.saved = map[string]string{}
	for k, v := range s.values {
		s.saved[k] = v
	}
}

// Restore ends what Save began.
func (s *Settings) Restore(rollback bool) {
	if s.saved != nil && rollback {
		s.values = s.saved
	} else {
		for k, v := range s.local {
			s.values[k] = v
		}
	}
	s.saved, s.local = nil, nil
}

// Zone is the session's time zone.
func (s *Settings) Zone() string {
	v, _ := s.Show("timezone")
	return v
}

// Reported gives the parameters whose values clients are told, by the names under which they are.
func (s *Settings) Reported() map[string]string {
	out := map[string]string{"session_authorization": s.role}
	for name, p := range parameters {
		if p.report {
			v, _ := s.Show(name)
			if p.name != "" {
				name = p.name
			}
			out[name] = v
		}
	}
	return out
}

// Timeout is the statement time-out that the client set; 0: none.
func (s *Settings) Timeout() time.Duration {
	v, _ := s.Show("statement_timeout")
	n, _ := strconv.ParseInt(v, 10, 64)
	return time.Duration(n) * time.Millisecond
}

// SearchPath lists the schemas in which names without one are looked for.
func (s *Settings) SearchPath() []string {
	v, _ := s.Show("search_path")
	var out []string
	for part := range strings.SplitSeq(v, ",") {
		part = strings.Trim(strings.TrimSpace(part), `"'`)
		if part != "" && part != "$user" {
			out = append(out, part)
		}
	}
	return out
}
