package com.cauce.delta;

import io.delta.storage.HadoopFileSystemLogStore;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.util.Arrays;
import java.util.Iterator;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FSDataOutputStreamBuilder;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Options.CreateFileOptionKeys;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.io.IOUtils;

/**
 * A LogStore with which Spark may write a Delta table on S3 beside other writers. Spark's own
 * S3SingleDriverLogStore looks whether a commit exists and then puts it, so that it can overwrite
 * another process's commit. This one puts it with If-None-Match: the server lets exactly one of any
 * number of writers create a name. It needs Hadoop 3.4.2 or newer, whose S3A has conditional
 * creation, and a server that keeps the condition.
 *
 * <p>spark.delta.logStore.s3a.impl=com.cauce.delta.S3PutIfAbsentLogStore
 */
public class S3PutIfAbsentLogStore extends HadoopFileSystemLogStore {
  public S3PutIfAbsentLogStore(Configuration conf) {
    super(conf);
  }

  @Override
  public void write(Path path, Iterator<String> actions, Boolean overwrite, Configuration conf)
      throws IOException {
    FileSystem fs = path.getFileSystem(conf);
    StringBuilder text = new StringBuilder();
    while (actions.hasNext()) {
      text.append(actions.next()).append('\n');
    }
    byte[] content = text.toString().getBytes(StandardCharsets.UTF_8);
    if (overwrite) {
      try (FSDataOutputStream out = fs.create(path, true)) {
        out.write(content);
      }
      return;
    }
    FSDataOutputStreamBuilder<?, ?> file = fs.createFile(path);
    file.create().overwrite(true); // whether there is one the server decides when the object is put
    file.must(CreateFileOptionKeys.FS_OPTION_CREATE_CONDITIONAL_OVERWRITE, true);
    try (FSDataOutputStream out = file.build()) {
      out.write(content);
    } catch (IOException e) {
      settle(fs, path, content, e);
    }
  }

  /**
   * Looks what became of a commit whose creation ended with an error: an answer may have been lost,
   * and the repetition of a request that had succeeded fails. A commit holds an id of its
   * transaction, so the same bytes are the same commit.
   */
  private static void settle(FileSystem fs, Path path, byte[] content, IOException e)
      throws IOException {
    if (!fs.exists(path)) {
      throw e;
    }
    byte[] there;
    try (FSDataInputStream in = fs.open(path)) {
      there = IOUtils.readFullyToByteArray(in);
    }
    if (!Arrays.equals(there, content)) {
      throw new FileAlreadyExistsException(path.toString());
    }
  }

  @Override
  public Boolean isPartialWriteVisible(Path path, Configuration conf) {
    return false; // an object appears when it is whole
  }
}
