package delta

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Table properties (PROTOCOL.md, "Table Properties") that this package acts on, with their defaults.
const (
	propCheckpointInterval = "delta.checkpointInterval"
	propLogRetention       = "delta.logRetentionDuration"
	propFileRetention      = "delta.deletedFileRetentionDuration"
	propTxnRetention       = "delta.setTransactionRetentionDuration"
	propAppendOnly         = "delta.appendOnly"
	propIsolation          = "delta.isolationLevel"
	propICT                = "delta.enableInCommitTimestamps"
	propICTVersion         = "delta.inCommitTimestampEnablementVersion"
	propICTTime            = "delta.inCommitTimestampEnablementTimestamp"
	propDeletionVectors    = "delta.enableDeletionVectors"
	propMappingMode        = "delta.columnMapping.mode"
	propMaxColumnID        = "delta.columnMapping.maxColumnId"
	propTypeWidening       = "delta.enableTypeWidening"
	propCheckpointPolicy   = "delta.checkpointPolicy"
	propRowTracking        = "delta.enableRowTracking"
	propStatsColumns       = "delta.dataSkippingStatsColumns"
	propMinReader          = "delta.minReaderVersion"
	propMinWriter          = "delta.minWriterVersion"

	checkpointIntervalDefault = 10
	logRetentionDefault       = 30 * 24 * time.Hour
	fileRetentionDefault      = 7 * 24 * time.Hour
)

// properties says how the value of each known delta.* property is checked; nil takes any value.
var properties = map[string]func(string) error{
	propDeletionVectors:                checkBool,
	propCheckpointInterval:             checkPositive,
	propLogRetention:                   checkInterval,
	propFileRetention:                  checkInterval,
	propTxnRetention:                   checkInterval,
	propAppendOnly:                     checkBool,
	propIsolation:                      checkIsolation,
	propICT:                            checkBool,
	propICTVersion:                     nil,
	propICTTime:                        nil,
	"delta.enableExpiredLogCleanup":    checkBool,
	propCheckpointPolicy:               checkPolicy,
	propStatsAsJSON:                    checkBool,
	propStatsAsStruct:                  checkBool,
	"delta.dataSkippingNumIndexedCols": checkWhole,
	propStatsColumns:                   nil,
	"delta.enableChangeDataFeed":       checkBool,
	propRowTracking:                    checkBool,
	propMappingMode:                    checkMode,
	propMaxColumnID:                    checkWhole,
	"delta.targetFileSize":             nil,
	"delta.autoOptimize.autoCompact":   nil,
	"delta.autoOptimize.optimizeWrite": nil,
	"delta.tuneFileSizesForRewrites":   nil,
	"delta.randomizeFilePrefixes":      checkBool,
	"delta.randomPrefixLength":         checkWhole,
	propRowTrackingSuspended:           checkBool,
	propRowIDColumn:                    nil,
	propRowVersionColumn:               nil,
	propTruncateRetention:              checkInterval,
	"delta.compatibility.symlinkFormatManifest.enabled": checkBool,
	"delta.parquet.compression.codec":                   nil,
	"delta.parquet.format.version":                      nil,
	propTypeWidening:                                    checkBool,
	"delta.enableIcebergCompatV1":                       checkBool,
	"delta.enableIcebergCompatV2":                       checkBool,
	"delta.universalFormat.enabledFormats":              nil,
	"delta.sampleRetentionPeriod":                       checkInterval,
	"delta.sampling.enabled":                            checkBool,
}

// checkProperties refuses unknown delta.* names and bad values. Names outside of delta.* are the user's own.
func checkProperties(config map[string]string) error {
	names := make([]string, 0, len(config))
	for n := range config {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if !strings.HasPrefix(strings.ToLower(n), "delta.") || strings.HasPrefix(n, "delta.feature.") || strings.HasPrefix(n, "delta.constraints.") {
			continue
		}
		check, ok := properties[n]
		if !ok {
			return fmt.Errorf("%w: %q is not known", ErrProperty, n)
		}
		if check != nil {
			if err := check(config[n]); err != nil {
				return fmt.Errorf("%w: %s=%q: %w", ErrProperty, n, config[n], err)
			}
		}
	}
	return nil
}

func checkBool(v string) error {
	if l := strings.ToLower(v); l != "true" && l != "false" {
		return fmt.Errorf("must be true or false")
	}
	return nil
}

func checkPositive(v string) error {
	if n, err := strconv.Atoi(v); err != nil || n < 1 {
		return fmt.Errorf("must be a positive number")
	}
	return nil
}

func checkWhole(v string) error {
	if _, err := strconv.Atoi(v); err != nil {
		return fmt.Errorf("must be a whole number")
	}
	return nil
}

func checkInterval(v string) error {
	_, err := parseInterval(v)
	return err
}

func checkIsolation(v string) error {
	if v != isolationSerializable && v != isolationWriteSerializable {
		return fmt.Errorf("must be Serializable or WriteSerializable")
	}
	return nil
}

func checkMode(v string) error {
	if v != "none" && v != "name" && v != "id" {
		return fmt.Errorf("must be none, name or id")
	}
	return nil
}

func checkPolicy(v string) error {
	if v != "classic" && v != "v2" {
		return fmt.Errorf("must be classic or v2")
	}
	return nil
}

// parseInterval reads Spark's interval text: "interval 30 days", "7 days 12 hours", units from nanoseconds to weeks.
// Months and years have no fixed length and are refused, as Delta does.
func parseInterval(s string) (time.Duration, error) {
	words := strings.Fields(strings.ToLower(s))
	if len(words) > 0 && words[0] == "interval" {
		words = words[1:]
	}
	if len(words) == 0 || len(words)%2 != 0 {
		return 0, fmt.Errorf("not an interval such as \"interval 30 days\"")
	}
	var total time.Duration
	for i := 0; i < len(words); i += 2 {
		n, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not a number", words[i])
		}
		var unit time.Duration
		switch strings.TrimSuffix(words[i+1], "s") {
		case "nanosecond":
			unit = time.Nanosecond
		case "microsecond":
			unit = time.Microsecond
		case "millisecond":
			unit = time.Millisecond
		case "second":
			unit = time.Second
		case "minute":
			unit = time.Minute
		case "hour":
			unit = time.Hour
		case "day":
			unit = 24 * time.Hour
		case "week":
			unit = 7 * 24 * time.Hour
		default:
			return 0, fmt.Errorf("unit %q is not one of nanoseconds to weeks", words[i+1])
		}
		if n < 0 || n > int64((1<<63-1)/unit) {
			return 0, fmt.Errorf("%d %s is out of range", n, words[i+1])
		}
		d := time.Duration(n) * unit
		if total+d < total {
			return 0, fmt.Errorf("%q is out of range", s)
		}
		total += d
	}
	return total, nil
}

// interval is a table property as a duration; a value that cannot be read stands for the default, for another engine
// may have written it.
func (s *Snapshot) interval(property string, def time.Duration) time.Duration {
	if v, ok := s.metadata.Configuration[property]; ok {
		if d, err := parseInterval(v); err == nil {
			return d
		}
	}
	return def
}

// DeletedFileRetention is how long removed data files are kept for readers of older versions
// (delta.deletedFileRetentionDuration, by default 7 days).
func (s *Snapshot) DeletedFileRetention() time.Duration {
	return s.interval(propFileRetention, fileRetentionDefault)
}

// LogRetention is how long log entries are kept (delta.logRetentionDuration, by default 30 days).
func (s *Snapshot) LogRetention() time.Duration {
	return s.interval(propLogRetention, logRetentionDefault)
}

// DeletionVectors reports whether changes of this table should write deletion vectors
// (delta.enableDeletionVectors, where the protocol supports them).
func (s *Snapshot) DeletionVectors() bool {
	return on(s.metadata, propDeletionVectors) && s.protocol.hasWriterFeature("deletionVectors")
}

func (s *Snapshot) checkpointInterval() int64 {
	if n, err := strconv.ParseInt(s.metadata.Configuration[propCheckpointInterval], 10, 64); err == nil && n > 0 {
		return n
	}
	return checkpointIntervalDefault
}
