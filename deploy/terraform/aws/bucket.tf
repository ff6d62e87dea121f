data "aws_caller_identity" "current" {}

data "aws_region" "current" {}

# The key that encrypts the objects, and the passwords of Kafka's users.
resource "aws_kms_key" "lake" {
  description             = "Objects of ${var.bucket}"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "AccountDecides"
      Effect    = "Allow"
      Principal = { AWS = "arn:aws:iam::${data.aws_caller_identity.current.account_id}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }]
  })
}

resource "aws_kms_alias" "lake" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.lake.key_id
}

resource "aws_s3_bucket" "lake" {
  #checkov:skip=CKV_AWS_144:a copy in another region is a choice of its own
  #checkov:skip=CKV_AWS_18:access logs need a second bucket; CloudTrail's data events tell the same
  #checkov:skip=CKV2_AWS_62:nothing waits for notifications: new files are found by listing
  bucket        = var.bucket
  force_destroy = var.destroy_with_data
}

resource "aws_s3_bucket_versioning" "lake" {
  bucket = aws_s3_bucket.lake.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "lake" {
  bucket = aws_s3_bucket.lake.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.lake.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "lake" {
  bucket                  = aws_s3_bucket.lake.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "lake" {
  bucket = aws_s3_bucket.lake.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_policy" "lake" {
  bucket     = aws_s3_bucket.lake.id
  depends_on = [aws_s3_bucket_public_access_block.lake]

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyEncryptedConnections"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.lake.arn, "${aws_s3_bucket.lake.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}

resource "aws_s3_bucket_lifecycle_configuration" "lake" {
  bucket     = aws_s3_bucket.lake.id
  depends_on = [aws_s3_bucket_versioning.lake]

  rule {
    id     = "old-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.old_version_days
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    id     = "broken-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  # Commits through DynamoDB are written under temporary names first, and nothing removes those.
  dynamic "rule" {
    for_each = var.dynamodb_commits ? var.tables : []

    content {
      id     = "temporary-commits-${rule.value}"
      status = "Enabled"

      filter {
        prefix = "processed/${rule.value}/_delta_log/.tmp/"
      }

      expiration {
        days = 7
      }
    }
  }

  dynamic "rule" {
    for_each = var.streaming_days > 0 ? [var.streaming_days] : []

    content {
      id     = "archive"
      status = "Enabled"

      filter {
        prefix = "raw/streaming/"
      }

      expiration {
        days = rule.value
      }
    }
  }
}

# S3 has no folders. These objects make the consoles show them before anything is in them; Cauce passes over them.
resource "aws_s3_object" "folder" {
  for_each = toset(concat(["raw/batch/", "raw/streaming/"], [for t in var.tables : "processed/${t}/"]))

  bucket     = aws_s3_bucket.lake.id
  key        = each.value
  content    = ""
  kms_key_id = aws_kms_key.lake.arn
}

resource "aws_dynamodb_table" "commits" {
  count = var.dynamodb_commits ? 1 : 0

  name         = "${var.name}-delta-log"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "tablePath"
  range_key    = "fileName"

  attribute {
    name = "tablePath"
    type = "S"
  }

  attribute {
    name = "fileName"
    type = "S"
  }

  # Entries of commits that are in their place expire a day later; the writers set it.
  ttl {
    attribute_name = "expireTime"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = aws_kms_key.lake.arn
  }
}
