output "roles" {
  description = "Service accounts, by the name of the role."
  value       = { for k, a in google_service_account.role : k => a.email }
}

output "storage" {
  description = "The root of the lake: storage in the lake file, or CAUCE_ROOT."
  value       = "gs://${google_storage_bucket.lake.name}"
}

output "lake_file" {
  description = "The line of a lake file that says where the lake is. Each service runs as its own service account."
  value       = "storage: gs://${google_storage_bucket.lake.name}\n"
}

output "pubsub" {
  description = "The source's keys in the lake file: kind pubsub."
  value = {
    project      = var.project
    topic        = google_pubsub_topic.events.name
    subscription = google_pubsub_subscription.lake.name
  }
}
