package delta

import "encoding/json"

// Version is the number of a commit, and of the table state after it. The first is 0.
type Version int64

// Add is the add action (PROTOCOL.md, "Add File and Remove File").
type Add struct {
	// Path is the RFC 2396 URI of the data file as the log has it (percent-encoded, relative to the table's root or absolute).
	Path string `json:"path"`
	// PartitionValues maps physical column names to serialised values; nil is null.
	PartitionValues         map[string]*string `json:"partitionValues"`
	Size                    int64              `json:"size"`             // bytes
	ModificationTime        int64              `json:"modificationTime"` // ms since the epoch
	DataChange              bool               `json:"dataChange"`
	Stats                   string             `json:"stats,omitempty"` // JSON, see Stats
	Tags                    map[string]*string `json:"tags,omitempty"`
	DeletionVector          *DeletionVector    `json:"deletionVector,omitempty"`
	BaseRowID               *int64             `json:"baseRowId,omitempty"`
	DefaultRowCommitVersion *int64             `json:"defaultRowCommitVersion,omitempty"`
	ClusteringProvider      *string            `json:"clusteringProvider,omitempty"`
}

// Remove is the remove action, a tombstone (PROTOCOL.md, "Add File and Remove File").
type Remove struct {
	Path                    string             `json:"path"`
	DeletionTimestamp       int64              `json:"deletionTimestamp,omitempty"` // ms since the epoch
	DataChange              bool               `json:"dataChange"`
	ExtendedFileMetadata    bool               `json:"extendedFileMetadata,omitempty"`
	PartitionValues         map[string]*string `json:"partitionValues,omitempty"`
	Size                    *int64             `json:"size,omitempty"`
	Stats                   string             `json:"stats,omitempty"`
	Tags                    map[string]*string `json:"tags,omitempty"`
	DeletionVector          *DeletionVector    `json:"deletionVector,omitempty"`
	BaseRowID               *int64             `json:"baseRowId,omitempty"`
	DefaultRowCommitVersion *int64             `json:"defaultRowCommitVersion,omitempty"`
}

// DeletionVector is the descriptor of a deletion vector (PROTOCOL.md, "Deletion Vector Descriptor Schema").
type DeletionVector struct {
	StorageType    string `json:"storageType"` // "u" relative with a UUID, "p" absolute path, "i" inline
	PathOrInlineDv string `json:"pathOrInlineDv"`
	Offset         *int32 `json:"offset,omitempty"`
	SizeInBytes    int32  `json:"sizeInBytes"`
	Cardinality    int64  `json:"cardinality"`
}

// Metadata is the metaData action (PROTOCOL.md, "Change Metadata").
type Metadata struct {
	ID               string            `json:"id"`
	Name             string            `json:"name,omitempty"`
	Description      string            `json:"description,omitempty"`
	Format           Format            `json:"format"`
	SchemaString     string            `json:"schemaString"`
	PartitionColumns []string          `json:"partitionColumns"`
	Configuration    map[string]string `json:"configuration"`
	CreatedTime      *int64            `json:"createdTime,omitempty"` // ms since the epoch

	// As the log has it: whether there are a name and a description, which may be empty, and whether a property was null.
	named, described, lossy bool
}

// Format is the file format of a table; only "parquet" exists.
type Format struct {
	Provider string            `json:"provider"`
	Options  map[string]string `json:"options"`
}

// Protocol is the protocol action (PROTOCOL.md, "Protocol Evolution").
type Protocol struct {
	MinReaderVersion int      `json:"minReaderVersion"`
	MinWriterVersion int      `json:"minWriterVersion"`
	ReaderFeatures   []string `json:"readerFeatures,omitempty"` // only at reader version 3
	WriterFeatures   []string `json:"writerFeatures,omitempty"` // only at writer version 7
}

// Txn is the txn action (PROTOCOL.md, "Transaction Identifiers").
type Txn struct {
	AppID       string `json:"appId"`
	Version     int64  `json:"version"`
	LastUpdated *int64 `json:"lastUpdated,omitempty"` // ms since the epoch
}

// CDC is the cdc action (PROTOCOL.md, "Add CDC File").
type CDC struct {
	Path            string             `json:"path"`
	PartitionValues map[string]*string `json:"partitionValues"`
	Size            int64              `json:"size"`
	DataChange      bool               `json:"dataChange"`
	Tags            map[string]*string `json:"tags,omitempty"`
}

// DomainMetadata is the domainMetadata action (PROTOCOL.md, "Domain Metadata").
type DomainMetadata struct {
	Domain        string `json:"domain"`
	Configuration string `json:"configuration"`
	Removed       bool   `json:"removed"`
}

// CommitInfo is the commitInfo action (PROTOCOL.md, "Commit Provenance Information"), with Spark's names for the
// fields that Spark writes. Fields of other writers are kept in Extra.
type CommitInfo struct {
	Timestamp           int64             `json:"timestamp"` // ms since the epoch
	InCommitTimestamp   *int64            `json:"inCommitTimestamp,omitempty"`
	Operation           string            `json:"operation,omitempty"`
	OperationParameters map[string]string `json:"operationParameters,omitempty"`
	OperationMetrics    map[string]string `json:"operationMetrics,omitempty"`
	ReadVersion         *int64            `json:"readVersion,omitempty"`
	IsolationLevel      string            `json:"isolationLevel,omitempty"`
	IsBlindAppend       *bool             `json:"isBlindAppend,omitempty"`
	EngineInfo          string            `json:"engineInfo,omitempty"`
	TxnID               string            `json:"txnId,omitempty"`
	UserMetadata        string            `json:"userMetadata,omitempty"`
	Tags                map[string]string `json:"tags,omitempty"`

	Extra map[string]json.RawMessage `json:"-"`
}
