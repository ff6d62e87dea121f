package com.cauce.delta;

import java.io.IOException;
import java.util.EnumSet;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.Path;
import org.apache.spark.sql.execution.streaming.checkpointing.CheckpointFileManager;
import org.apache.spark.sql.execution.streaming.checkpointing.FileContextBasedCheckpointFileManager;

/**
 * Writes the files of a stream's checkpoint, and Delta's version checksums, straight to their place
 * on S3, where an object appears when it is whole. Spark's own manager writes each under another
 * name, copies it and deletes the first one; the role of a writer may delete nothing.
 *
 * <p>spark.sql.streaming.checkpointFileManagerClass=com.cauce.delta.S3CheckpointFileManager
 */
public class S3CheckpointFileManager extends FileContextBasedCheckpointFileManager {
  public S3CheckpointFileManager(Path path, Configuration conf) {
    super(path, conf);
  }

  @Override
  public CheckpointFileManager.CancellableFSDataOutputStream createAtomic(
      Path path, boolean overwriteIfPossible) {
    EnumSet<CreateFlag> flags =
        overwriteIfPossible
            ? EnumSet.of(CreateFlag.CREATE, CreateFlag.OVERWRITE)
            : EnumSet.of(CreateFlag.CREATE);
    try {
      return new Whole(fc().create(path, flags));
    } catch (IOException e) {
      throw S3CheckpointFileManager.<RuntimeException>unchecked(e);
    }
  }

  /** Scala's methods declare no exceptions, and their callers look for these. */
  @SuppressWarnings("unchecked")
  private static <E extends Throwable> E unchecked(Throwable e) throws E {
    throw (E) e;
  }

  /** A file that is there once it is closed, and never if it is cancelled. */
  private static final class Whole extends CheckpointFileManager.CancellableFSDataOutputStream {
    private final FSDataOutputStream out;
    private boolean ended;

    Whole(FSDataOutputStream out) {
      super(out);
      this.out = out;
    }

    @Override
    public synchronized void close() throws IOException {
      if (!ended) {
        ended = true;
        out.close();
      }
    }

    @Override
    public synchronized void cancel() {
      if (!ended) {
        ended = true;
        out.abort();
      }
    }
  }
}
