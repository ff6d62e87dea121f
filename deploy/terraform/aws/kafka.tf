locals {
  kafka = var.kafka == null ? [] : [var.kafka]

  # Kafka's own users, one for each role that touches the topic; their rights in Kafka are ACLs (docs/aws.md).
  kafka_users = var.kafka == null ? toset([]) : toset(["producer", "streaming"])
}

resource "aws_security_group" "kafka" {
  count = length(local.kafka)

  name        = "${var.name}-kafka"
  description = "Brokers of ${var.name}"
  vpc_id      = var.kafka.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "kafka" {
  for_each = toset(try(var.kafka.security_groups, []))

  security_group_id            = aws_security_group.kafka[0].id
  description                  = "SASL/SCRAM over TLS"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 9096
  to_port                      = 9096
}

resource "aws_msk_configuration" "kafka" {
  count = length(local.kafka)

  name           = "${var.name}-kafka"
  kafka_versions = [var.kafka.version]

  server_properties = <<-EOT
    auto.create.topics.enable=false
    allow.everyone.if.no.acl.found=false
    default.replication.factor=${length(var.kafka.subnets)}
    min.insync.replicas=${max(1, length(var.kafka.subnets) - 1)}
    unclean.leader.election.enable=false
    log.retention.hours=168
  EOT
}

resource "aws_cloudwatch_log_group" "kafka" {
  #checkov:skip=CKV_AWS_158:what brokers log is no data of the lake
  #checkov:skip=CKV_AWS_338:a month of broker logs is enough
  count = length(local.kafka)

  name              = "/${var.name}/kafka"
  retention_in_days = 30
}

resource "aws_msk_cluster" "kafka" {
  count = length(local.kafka)

  cluster_name           = "${var.name}-kafka"
  kafka_version          = var.kafka.version
  number_of_broker_nodes = length(var.kafka.subnets)

  broker_node_group_info {
    instance_type   = var.kafka.instance_type
    client_subnets  = var.kafka.subnets
    security_groups = [aws_security_group.kafka[0].id]

    storage_info {
      ebs_storage_info {
        volume_size = var.kafka.disk_gb
      }
    }
  }

  client_authentication {
    sasl {
      scram = true
      iam   = true # by which the administrator makes topic and ACLs
    }
  }

  encryption_info {
    encryption_at_rest_kms_key_arn = aws_kms_key.lake.arn

    encryption_in_transit {
      client_broker = "TLS"
      in_cluster    = true
    }
  }

  configuration_info {
    arn      = aws_msk_configuration.kafka[0].arn
    revision = aws_msk_configuration.kafka[0].latest_revision
  }

  logging_info {
    broker_logs {
      cloudwatch_logs {
        enabled   = true
        log_group = aws_cloudwatch_log_group.kafka[0].name
      }
    }
  }
}

# Passwords are made by AWS and stand in no state file.
ephemeral "aws_secretsmanager_random_password" "kafka" {
  password_length     = 32
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "kafka" {
  #checkov:skip=CKV2_AWS_57:Kafka's users are changed by hand, brokers and clients together
  for_each = local.kafka_users

  name       = "AmazonMSK_${var.name}_${each.value}"
  kms_key_id = aws_kms_key.lake.arn
}

resource "aws_secretsmanager_secret_version" "kafka" {
  for_each = local.kafka_users

  secret_id = aws_secretsmanager_secret.kafka[each.value].id

  # A new number makes new passwords.
  secret_string_wo_version = 1
  secret_string_wo = jsonencode({
    username = each.value
    password = sha256("${each.value}/${ephemeral.aws_secretsmanager_random_password.kafka.random_password}")
  })
}

resource "aws_msk_scram_secret_association" "kafka" {
  count = length(local.kafka)

  cluster_arn     = aws_msk_cluster.kafka[0].arn
  secret_arn_list = [for u in local.kafka_users : aws_secretsmanager_secret.kafka[u].arn]
  depends_on      = [aws_secretsmanager_secret_version.kafka]
}

# A role reads the password of its own user in Kafka, and of no other.
resource "aws_iam_role_policy" "kafka" {
  for_each = local.kafka_users

  name = "kafka"
  role = aws_iam_role.role[each.value].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = aws_secretsmanager_secret.kafka[each.value].arn
      },
      {
        Effect    = "Allow"
        Action    = ["kms:Decrypt"]
        Resource  = aws_kms_key.lake.arn
        Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${data.aws_region.current.name}.amazonaws.com" } }
      },
    ]
  })
}
