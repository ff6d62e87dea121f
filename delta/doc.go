// Package delta reads and writes Delta Lake tables in pure Go, by the letter of the protocol: no cgo, no JVM, no cloud
// SDK. A table that Spark, delta-rs or Kernel wrote can be read and changed here, and the other way round.
//
// # Start
//
// A table is a folder of a store (package objstore). [Create] makes one, [Open] opens one that is there, whoever made it:
//
//	store, err := objstore.NewLocal("/lake")
//	table, err := delta.Open(ctx, store, "processed/events", nil)
//	snapshot, err := table.Snapshot(ctx)
//	for batch, err := range table.Scan(ctx, snapshot, delta.ScanOptions{Columns: []string{"id"}}) {
//		…
//	}
//
// Rows go in and out as Arrow record batches of github.com/apache/arrow-go. [NewRows] makes batches into the [Rows] that
// [Table.Append], [Table.Overwrite], [Table.Merge] and [Table.Delete] take.
//
// # Snapshots
//
// A [Snapshot] is the table at one version and never changes: read it as long as you like while others write.
// [Table.Snapshot] is the newest; [Table.SnapshotAt] and [Table.SnapshotAsOf] travel in time. [Table.Scan] yields rows;
// its Where leaves out files by partition values and statistics, never a row that satisfies it, and does not filter the rows
// of the files that are left. [Table.Changes] yields what commits inserted, updated and deleted, [Table.History] the commits.
//
// # Writing
//
// Each operation is one commit: all of it is in the table, or nothing. [Table.Append] adds rows, [Table.Merge] upserts by
// key, [Table.Delete] removes by value, [Table.Overwrite] and [Table.ReplaceWhere] replace. [Table.DeleteWhere], [Table.Update] and
// [Table.MergeInto] are SQL's DELETE, UPDATE and MERGE; their conditions are trees of package delta/expr. [Table.Optimize], [Table.Vacuum], [Table.Restore],
// [Table.Checkpoint] and [Table.CleanupLog] maintain. Who plans file actions alone uses [Table.Begin] and [Tx.Commit].
//
// # Schema and properties
//
// [Table.AddColumns], [Table.RenameColumn], [Table.DropColumns] and [Table.ChangeColumn] change the schema, nested columns
// too; renaming and dropping needs column mapping (delta.columnMapping.mode), other types need delta.enableTypeWidening.
// [Table.SetProperties] and [Table.UnsetProperties] change properties and raise the protocol where a property hangs on a
// table feature, [Table.DropFeature] lowers it. [Table.SetClusterBy] says what [Table.Optimize] clusters by. What cannot be
// is an [AlterError] with the name that Spark has for it.
//
// An operation that carries a [Txn] (an application and its version) is done at most once however often it is repeated:
// the second time it answers [ErrTxnApplied]. That is how a stream of batches becomes exactly once.
//
// # What a table can be asked to do beside
//
// Properties in [CreateOptions].Config turn features on, under the names that Spark has for them; the protocol is raised as
// far as they need it. With delta.enableRowTracking every row has an id that it keeps while it is changed and moved, and
// the version in which that happened last: [ScanOptions].RowTracking gives both, and [Table.EnableRowTracking] turns it on
// for a table that has rows. With delta.enableInCommitTimestamps the times of versions rise whatever clocks do. With
// delta.checkpointPolicy=v2 checkpoints have sidecars ([Table.CheckpointAs]). [Table.SetDomain] keeps a text of one's own in
// the log, which all writers preserve.
//
// Each commit is followed by a version checksum where it is exact. [ReadHead] reads a table's protocol, metadata and size
// from it, at the same cost for a table of any size, and [Snapshot.VerifyChecksum] compares a version with what its writer
// said of it.
//
// # Writers beside each other
//
// Any number of processes may write one table; the store's PutIfAbsent decides who gets a version. A writer that loses
// follows the rules of Spark's ConflictChecker, in its order, at the isolation level of the table's property
// delta.isolationLevel (Serializable, the default, or WriteSerializable). Append, Merge, Delete, Overwrite, Restore and SQL's
// changes mend lost races themselves, and Optimize yields to writers of rows, so their callers see a conflict only when the bounds of
// [Options] (20 tries or 60 s) are used up: [ErrTooManyTries]. [Tx.Commit] reports conflicts as a [ConflictError], under
// Spark's names:
//
//	Spark                                  errors.Is finds
//	ConcurrentAppendException              ErrConcurrentAppend
//	ConcurrentDeleteReadException          ErrConcurrentDeleteRead
//	ConcurrentDeleteDeleteException        ErrConcurrentDeleteDelete
//	ConcurrentTransactionException         ErrConcurrentTransaction (the same as ErrTxnApplied)
//	MetadataChangedException               ErrMetadataChanged
//	ProtocolChangedException               ErrProtocolChanged
//	all of them                            ErrConflict
//
// When a store does not say whether it took a commit, the commit is read back and recognised by its txnId; only an error
// that is objstore.ErrAmbiguous leaves it open.
//
// # Engines
//
// Finding, reading and writing rows is done by an [Engine]: a [Locator], a [Reader] and a [FileWriter]. The zero value
// is pure Go. An Engine may also have an [ExpressionParser]: tables keep CHECK constraints, generated columns and defaults
// as SQL, which this package does not read, and without one it refuses to write such tables. Package enginetest has the suite that an implementation of one's own must pass.
//
// # What is not supported
//
// A table that needs a feature which is not implemented is refused with an [UnsupportedError] that names it; nothing is
// half supported. Read and not written: variants (variantType, variantShredding), the preview of type widening. Neither:
// identity columns in use, Iceberg compatibility, collations, catalogManaged, and what is newer.
package delta
