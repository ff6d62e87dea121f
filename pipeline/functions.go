package pipeline

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// sqlType is what is known of an expression's value before any row is seen.
type sqlType int

const (
	typeAny sqlType = iota // NULL, or not known
	typeText
	typeBool
	typeInt
	typeDecimal
	typeFloat
	typeTimestamp
	typeDate
	typeOther // binary and nested types
)

func (t sqlType) String() string {
	return [...]string{"any value", "text", "a boolean", "an integer", "a decimal", "a floating-point number", "a timestamp", "a date", "a nested or binary value"}[t]
}

func (t sqlType) number() bool { return t == typeInt || t == typeDecimal || t == typeFloat }

// Function is one entry of the pinned list: the functions an expression may call, with a meaning that every engine
// must give exactly.
type Function struct {
	Name      string
	Signature string
	Meaning   string
	Examples  []Example
	ArgsMin   int
	ArgsMax   int // -1: any number
	// RecordOnly functions know the record and its file; they may stand in filter, fields and delete only.
	RecordOnly bool
	// FilesOnly functions may stand in sources of files only.
	FilesOnly bool

	args   []argKind // the last one repeats
	result func([]sqlType) sqlType
	check  func(args []Expr) error // of literal arguments
}

// Example is an expression and its value as canonical text; "NULL" is null, "fails" a row that goes to quarantine.
type Example struct{ SQL, Value string }

// argKind is a set of types.
type argKind int

const (
	anyArg argKind = iota
	textArg
	textOrIntArg
	textLikeArg // what has one obvious text: text, integers, decimals, dates
	numberArg
	intArg
	boolArg
	timestampArg
	sameArg // of one type with the other sameArgs
)

func (k argKind) accepts(t sqlType) bool {
	if t == typeAny {
		return true
	}
	switch k {
	case textArg:
		return t == typeText
	case textOrIntArg:
		return t == typeText || t == typeInt
	case textLikeArg:
		return t == typeText || t == typeInt || t == typeDecimal || t == typeDate
	case numberArg:
		return t.number()
	case intArg:
		return t == typeInt
	case boolArg:
		return t == typeBool
	case timestampArg:
		return t == typeTimestamp
	}
	return true
}

func (k argKind) String() string {
	return [...]string{"any value", "text", "text or an integer", "text, an integer, a decimal or a date", "a number", "an integer", "a boolean", "a timestamp", "a value of one type"}[k]
}

func always(t sqlType) func([]sqlType) sqlType { return func([]sqlType) sqlType { return t } }

func firstType(a []sqlType) sqlType { return a[0] }

// common is the type of a value that may be any of several; ok is false if they do not go together.
func common(types []sqlType) (t sqlType, ok bool) {
	for _, x := range types {
		switch {
		case x == typeAny || x == t:
		case t == typeAny:
			t = x
		case t.number() && x.number():
			t = max(t, x)
		default:
			return t, false
		}
	}
	return t, true
}

func commonType(a []sqlType) sqlType {
	t, _ := common(a)
	return t
}

func ints(a []sqlType) sqlType {
	if a[0] == typeInt {
		return typeInt
	}
	return a[0]
}

// Functions returns the pinned list in the order of the documentation.
func Functions() []Function { return slices.Clone(functions) }

func function(name string) *Function {
	for i := range functions {
		if functions[i].Name == name {
			return &functions[i]
		}
	}
	return nil
}

var functions = []Function{
	{Name: "to_event_time", Signature: "to_event_time(text [, pattern])", ArgsMin: 1, ArgsMax: 2, args: []argKind{textOrIntArg, textArg}, result: always(typeTimestamp),
		Meaning: "The instant that a text or integer names. A whole or decimal number is a time since 1970-01-01 UTC whose unit its size tells: below 10^11 seconds, below 10^14 milliseconds, below 10^17 microseconds, else nanoseconds; digits below one microsecond are cut off. Otherwise ISO 8601: date, optionally 'T' or a space and a time, fractions of any length, and 'Z' or an offset; without one the table's time zone counts. With a pattern the text must match it (%Y %y %m %d %H %I %M %S %f %p %b %B %j %z, all else literally). Other texts fail; null and blank text are null.",
		Examples: []Example{{"to_event_time('1724112000')", "2024-08-20T00:00:00.000000Z"}, {"to_event_time('1724112000123')", "2024-08-20T00:00:00.123000Z"}, {"to_event_time('1724112000.5')", "2024-08-20T00:00:00.500000Z"}, {"to_event_time('2024-08-20T02:00:00+02:00')", "2024-08-20T00:00:00.000000Z"},
			{"to_event_time('20.08.2024 00:00', '%d.%m.%Y %H:%M')", "2024-08-20T00:00:00.000000Z"}, {"to_event_time('yesterday')", "fails"}},
		check: checkTimePattern},
	{Name: "to_date", Signature: "to_date(timestamp)", ArgsMin: 1, ArgsMax: 1, args: []argKind{timestampArg}, result: always(typeDate),
		Meaning:  "The calendar day of the instant in the table's time zone, by the zone's rules of that day. For a text write CAST(x AS DATE), which takes 2024-08-20 only.",
		Examples: []Example{{"to_date(to_event_time('2024-08-20T23:59:59Z'))", "2024-08-20"}}},
	{Name: "to_boolean", Signature: "to_boolean(text)", ArgsMin: 1, ArgsMax: 1, args: []argKind{textArg}, result: always(typeBool),
		Meaning:  "true for true, t, yes, y, on and 1; false for false, f, no, n, off and 0; in any case, blanks around it ignored. Other texts fail; null and blank text are null.",
		Examples: []Example{{"to_boolean(' True ')", "true"}, {"to_boolean('0')", "false"}, {"to_boolean('maybe')", "fails"}}},
	{Name: "upper", Signature: "upper(text)", ArgsMin: 1, ArgsMax: 1, args: []argKind{textArg}, result: always(typeText),
		Meaning: "Upper case, letter by letter, by Unicode's simple mapping and in no language: the text keeps its length, ß becomes ẞ, and a letter whose upper case would be several stays as it is.", Examples: []Example{{"upper('btcUsdt')", "BTCUSDT"}, {"upper('straße')", "STRAẞE"}}},
	{Name: "lower", Signature: "lower(text)", ArgsMin: 1, ArgsMax: 1, args: []argKind{textArg}, result: always(typeText),
		Meaning: "Lower case, letter by letter, in no language: İ becomes i, and Σ becomes σ wherever it stands.", Examples: []Example{{"lower('BTC')", "btc"}, {"lower('İ')", "i"}}},
	{Name: "trim", Signature: "trim(text [, characters])", ArgsMin: 1, ArgsMax: 2, args: []argKind{textArg}, result: always(typeText),
		Meaning: "Without spaces (or any of the characters) at both ends. Only the space counts as space.", Examples: []Example{{"trim('  a ')", "a"}, {"trim('(a)', '()')", "a"}}},
	{Name: "ltrim", Signature: "ltrim(text [, characters])", ArgsMin: 1, ArgsMax: 2, args: []argKind{textArg}, result: always(typeText),
		Meaning: "As trim, at the beginning only.", Examples: []Example{{"ltrim('007', '0')", "7"}}},
	{Name: "rtrim", Signature: "rtrim(text [, characters])", ArgsMin: 1, ArgsMax: 2, args: []argKind{textArg}, result: always(typeText),
		Meaning: "As trim, at the end only.", Examples: []Example{{"rtrim('a  ')", "a"}}},
	{Name: "substr", Signature: "substr(text, from [, count])", ArgsMin: 2, ArgsMax: 3, args: []argKind{textArg, intArg}, result: always(typeText),
		Meaning: "The characters (code points) from the given one on, counted from 1; negative counts from the end. 0 stands before the first. Beyond either end there is nothing, and no failure; a count below 1 takes nothing.", Examples: []Example{{"substr('BTCUSDT', 4)", "USDT"}, {"substr('BTCUSDT', 1, 3)", "BTC"}, {"substr('BTCUSDT', -4)", "USDT"}, {"substr('BTCUSDT', 0, 2)", "B"}, {"substr('BTCUSDT', -9, 3)", "B"}}},
	{Name: "length", Signature: "length(text)", ArgsMin: 1, ArgsMax: 1, args: []argKind{textArg}, result: always(typeInt),
		Meaning: "The number of characters (code points).", Examples: []Example{{"length('día')", "3"}}},
	{Name: "replace", Signature: "replace(text, what, by)", ArgsMin: 3, ArgsMax: 3, args: []argKind{textArg}, result: always(typeText),
		Meaning: "Every occurrence of what replaced by by; an empty what replaces nothing.", Examples: []Example{{"replace('1.234.567', '.', '')", "1234567"}}},
	{Name: "concat", Signature: "concat(value, …)", ArgsMin: 1, ArgsMax: -1, args: []argKind{textLikeArg}, result: always(typeText),
		Meaning: "The texts joined; null counts as empty. (a || b is null if either is.)", Examples: []Example{{"concat('a', NULL, 1)", "a1"}, {"'a' || NULL", "NULL"}}},
	{Name: "split_part", Signature: "split_part(text, separator, n)", ArgsMin: 3, ArgsMax: 3, args: []argKind{textArg, textArg, intArg}, result: always(typeText),
		Meaning: "The n-th part of the text between separators, counted from 1, or from the end if negative; empty if there are fewer.", Examples: []Example{{"split_part('BTC-USD', '-', 2)", "USD"}, {"split_part('BTC-USD', '-', -2)", "BTC"}}},
	{Name: "regexp_like", Signature: "regexp_like(text, pattern)", ArgsMin: 2, ArgsMax: 2, args: []argKind{textArg}, result: always(typeBool),
		Meaning: "Whether the regular expression (RE2) matches anywhere in the text. The pattern is a literal. ^ and $ are the ends of the text, . is no line feed, \\d, \\w, \\s and \\b know ASCII only, (?i) folds letters one by one.", Examples: []Example{{"regexp_like('BTCUSDT', '^[A-Z]+$')", "true"}}, check: checkRegexp},
	{Name: "regexp_extract", Signature: "regexp_extract(text, pattern [, group])", ArgsMin: 2, ArgsMax: 3, args: []argKind{textArg, textArg, intArg}, result: always(typeText),
		Meaning: "What the regular expression (RE2), or its group of that number, matches first; empty if nothing. Of several alternatives the first counts. The pattern is a literal.", Examples: []Example{{"regexp_extract('BTC-USD', '-(.*)', 1)", "USD"}}, check: checkRegexp},
	{Name: "coalesce", Signature: "coalesce(value, …)", ArgsMin: 1, ArgsMax: -1, args: []argKind{sameArg}, result: commonType,
		Meaning: "The first value that is not null.", Examples: []Example{{"coalesce(NULL, 'a', 'b')", "a"}}},
	{Name: "nullif", Signature: "nullif(a, b)", ArgsMin: 2, ArgsMax: 2, args: []argKind{sameArg}, result: firstType,
		Meaning: "Null if a = b, else a, also where b is null.", Examples: []Example{{"nullif('-', '-')", "NULL"}, {"nullif('-', NULL)", "-"}}},
	{Name: "greatest", Signature: "greatest(value, …)", ArgsMin: 1, ArgsMax: -1, args: []argKind{sameArg}, result: commonType,
		Meaning: "The greatest of the values that are not null; null if all are. Texts compare byte by byte, NaN is the greatest number.", Examples: []Example{{"greatest(1, NULL, 3)", "3"}}},
	{Name: "least", Signature: "least(value, …)", ArgsMin: 1, ArgsMax: -1, args: []argKind{sameArg}, result: commonType,
		Meaning: "The least of the values that are not null; null if all are.", Examples: []Example{{"least(1, NULL, 3)", "1"}}},
	{Name: "abs", Signature: "abs(number)", ArgsMin: 1, ArgsMax: 1, args: []argKind{numberArg}, result: firstType,
		Meaning: "The number without its sign. That of the least LONG does not fit and fails.", Examples: []Example{{"abs(-2)", "2"}, {"abs(CAST('-9223372036854775808' AS LONG))", "fails"}}},
	{Name: "round", Signature: "round(number [, digits])", ArgsMin: 1, ArgsMax: 2, args: []argKind{numberArg, intArg}, result: ints,
		Meaning: "Rounded to so many decimals (0), halves away from zero; negative digits round before the point. A decimal is rounded exactly, to digits that are a literal; of a DOUBLE the product with the power of ten is, so that 1.005 to two digits is 1.0. A result that does not fit fails.", Examples: []Example{{"round(2.5)", "3"}, {"round(-1.25, 1)", "-1.3"}, {"round(1250, -2)", "1300"}, {"round(9223372036854775807, -2)", "9223372036854775800"}}},
	{Name: "floor", Signature: "floor(number)", ArgsMin: 1, ArgsMax: 1, args: []argKind{numberArg}, result: ints,
		Meaning: "The next whole number below; NaN and infinity stay.", Examples: []Example{{"floor(-1.5)", "-2"}}},
	{Name: "ceil", Signature: "ceil(number)", ArgsMin: 1, ArgsMax: 1, args: []argKind{numberArg}, result: ints,
		Meaning: "The next whole number above; NaN and infinity stay.", Examples: []Example{{"ceil(1.2)", "2"}}},
	{Name: "file_name", Signature: "file_name()", ArgsMin: 0, ArgsMax: 0, RecordOnly: true, FilesOnly: true, result: always(typeText),
		Meaning: "The name of the record's file, without its folders."},
	{Name: "file_group", Signature: "file_group('name')", ArgsMin: 1, ArgsMax: 1, RecordOnly: true, FilesOnly: true, args: []argKind{textArg}, result: always(typeText),
		Meaning: "What the named group of the source's from_filename matches in the file's name; null if it does not match."},
	{Name: "occurrence", Signature: "occurrence()", ArgsMin: 0, ArgsMax: 0, RecordOnly: true, FilesOnly: true, result: always(typeInt),
		Meaning: "The ordinal of the record among the identical records of its file, from 1. With the fields themselves it makes a key for records that have none."},
}

// operator says how an operator's arguments must be.
type operator struct {
	args   argKind
	min    int
	max    int // -1: any number
	result func([]sqlType) sqlType
}

func arithmetic(a []sqlType) sqlType { return commonType(a) }

var operators = map[string]operator{
	"+": {numberArg, 2, 2, arithmetic}, "-": {numberArg, 2, 2, arithmetic}, "*": {numberArg, 2, 2, arithmetic},
	"/": {numberArg, 2, 2, always(typeFloat)}, "%": {numberArg, 2, 2, arithmetic}, "neg": {numberArg, 1, 1, firstType},
	"||": {textLikeArg, 2, 2, always(typeText)},
	"=":  {sameArg, 2, 2, always(typeBool)}, "<>": {sameArg, 2, 2, always(typeBool)}, "<": {sameArg, 2, 2, always(typeBool)},
	"<=": {sameArg, 2, 2, always(typeBool)}, ">": {sameArg, 2, 2, always(typeBool)}, ">=": {sameArg, 2, 2, always(typeBool)},
	"and": {boolArg, 1, -1, always(typeBool)}, "or": {boolArg, 1, -1, always(typeBool)}, "not": {boolArg, 1, 1, always(typeBool)},
	"is null": {anyArg, 1, 1, always(typeBool)}, "is not null": {anyArg, 1, 1, always(typeBool)},
	"in": {sameArg, 2, -1, always(typeBool)}, "like": {textArg, 2, 2, always(typeBool)},
}

// known names that other databases give to functions of the list.
var functionAliases = map[string]string{
	"substring": "substr", "ucase": "upper", "lcase": "lower", "len": "length", "char_length": "length", "character_length": "length",
	"ifnull": "coalesce", "nvl": "coalesce", "isnull": "coalesce", "ceiling": "ceil", "regexp_matches": "regexp_like", "regexp": "regexp_like", "rlike": "regexp_like",
	"to_timestamp": "to_event_time", "strptime": "to_event_time", "from_unixtime": "to_event_time", "epoch_ms": "to_event_time", "make_timestamp": "to_event_time", "parse_timestamp": "to_event_time",
	"date": "to_date", "concat_ws": "concat", "split": "split_part", "btrim": "trim", "strip": "trim", "row_number": "occurrence", "filename": "file_name", "input_file_name": "file_name",
}

// functionHint says what to write instead of a function that is not on the list.
func functionHint(name string) string {
	if to, ok := functionAliases[strings.ToLower(name)]; ok {
		return fmt.Sprintf("did you mean %s?", function(to).Signature)
	}
	var all []string
	for _, f := range functions {
		all = append(all, f.Name)
	}
	if n := nearest(name, all); n != "" {
		return fmt.Sprintf("did you mean %s?", function(n).Signature)
	}
	return "the functions are listed in docs/expressions.md"
}

func literalText(e Expr) (string, bool) {
	l, ok := e.(Literal)
	if !ok {
		return "", false
	}
	s, ok := l.Value.(string)
	return s, ok
}

func checkRegexp(args []Expr) error {
	if len(args) < 2 {
		return nil
	}
	p, ok := literalText(args[1])
	if !ok {
		return fmt.Errorf("the pattern must be a literal text")
	}
	re, err := regexp.Compile(p)
	if err != nil {
		return fmt.Errorf("the pattern %q is no regular expression: %w", p, err)
	}
	if len(args) == 3 {
		l, ok := args[2].(Literal)
		if !ok {
			return fmt.Errorf("the group must be a literal number")
		}
		if n, ok := l.Value.(int64); !ok || n < 0 || n > int64(re.NumSubexp()) {
			return fmt.Errorf("the pattern %q has no group %v", p, l.Value)
		}
	}
	return nil
}

const timeSpecifiers = "YymdHIMSfpbBjz%"

func checkTimePattern(args []Expr) error {
	if len(args) < 2 {
		return nil
	}
	p, ok := literalText(args[1])
	if !ok {
		return fmt.Errorf("the pattern must be a literal text, such as '%%d.%%m.%%Y'")
	}
	var day, month, year bool
	for i := 0; i < len(p); i++ {
		if p[i] != '%' {
			continue
		}
		i++
		if i == len(p) || !strings.ContainsRune(timeSpecifiers, rune(p[i])) {
			return fmt.Errorf("the pattern %q has an unknown part %q; parts are %%Y %%y %%m %%d %%H %%I %%M %%S %%f %%p %%b %%B %%j %%z %%%%", p, p[i-1:min(i+1, len(p))])
		}
		switch p[i] {
		case 'Y', 'y':
			year = true
		case 'm', 'b', 'B':
			month = true
		case 'd':
			day = true
		case 'j':
			day, month = true, true
		}
	}
	if !year || !month || !day {
		return fmt.Errorf("the pattern %q does not tell year, month and day; parts are %%Y %%m %%d %%H %%M %%S, such as '%%d.%%m.%%Y %%H:%%M'", p)
	}
	return nil
}
