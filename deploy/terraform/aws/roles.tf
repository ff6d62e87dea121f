locals {
  principals = length(var.trusted_principals) > 0 ? var.trusted_principals : ["arn:aws:iam::${data.aws_caller_identity.current.account_id}:root"]

  # What each role does with the lake's key. The producer is not here: it sees no bucket.
  key_actions = {
    batch       = ["kms:Decrypt", "kms:GenerateDataKey"]
    streaming   = ["kms:Decrypt", "kms:GenerateDataKey"]
    reader      = ["kms:Decrypt"]
    maintenance = ["kms:Decrypt", "kms:GenerateDataKey"]
  }

  # Readers look whether a commit was left half made, and leave it to the writers to finish it.
  commit_actions = {
    batch       = ["dynamodb:GetItem", "dynamodb:Query", "dynamodb:PutItem"]
    streaming   = ["dynamodb:GetItem", "dynamodb:Query", "dynamodb:PutItem"]
    reader      = ["dynamodb:GetItem", "dynamodb:Query"]
    maintenance = ["dynamodb:GetItem", "dynamodb:Query", "dynamodb:PutItem"]
  }
}

resource "aws_iam_role" "role" {
  for_each = toset(["producer", "batch", "streaming", "reader", "maintenance"])

  name                 = "${var.name}-${each.value}"
  max_session_duration = 3600

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { AWS = local.principals }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "bucket" {
  for_each = local.key_actions

  name   = "bucket"
  role   = aws_iam_role.role[each.key].id
  policy = templatefile("${path.module}/policies/${each.key}.json.tftpl", { bucket = aws_s3_bucket.lake.id })
}

resource "aws_iam_role_policy" "key" {
  for_each = local.key_actions

  name = "key"
  role = aws_iam_role.role[each.key].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = each.value
      Resource = aws_kms_key.lake.arn
    }]
  })
}

resource "aws_iam_role_policy" "commits" {
  for_each = var.dynamodb_commits ? local.commit_actions : {}

  name = "commits"
  role = aws_iam_role.role[each.key].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = each.value
      Resource = aws_dynamodb_table.commits[0].arn
    }]
  })
}
