output "roles" {
  description = "ARNs of the roles, by name."
  value       = { for k, r in aws_iam_role.role : k => r.arn }
}

output "role_prefix" {
  description = "What the ARNs of the roles begin with; producer, batch, streaming, reader or maintenance follows."
  value       = trimsuffix(aws_iam_role.role["reader"].arn, "reader")
}

output "storage" {
  description = "The root of the lake: storage in the lake file, or CAUCE_ROOT."
  value       = "s3://${aws_s3_bucket.lake.id}"
}

output "lake_file" {
  description = "The lines of a lake file that say where the lake is and how it is reached. Each service names its own role in LAKE_ROLE."
  value = join("\n", concat([
    "storage: s3://${aws_s3_bucket.lake.id}",
    "store:",
    "  region: ${data.aws_region.current.name}",
    "  role: $${env:LAKE_ROLE}",
    ], var.dynamodb_commits ? [
    "  commit: dynamodb",
    "  commit_table: ${aws_dynamodb_table.commits[0].name}",
  ] : [], [""]))
}

output "kafka_brokers" {
  description = "Addresses of the brokers, for kafka.brokers in the lake file."
  value       = try(split(",", aws_msk_cluster.kafka[0].bootstrap_brokers_sasl_scram), [])
}

output "kafka_secrets" {
  description = "Where user and password of each role in Kafka stand, in Secrets Manager."
  value       = { for u, s in aws_secretsmanager_secret.kafka : u => s.arn }
}
