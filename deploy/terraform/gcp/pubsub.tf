resource "google_pubsub_topic" "events" {
  #checkov:skip=CKV_GCP_83:messages are encrypted with Google's keys; a key of one's own needs an agent of Pub/Sub
  name                       = var.topic
  message_retention_duration = "604800s"
}

resource "google_pubsub_subscription" "lake" {
  name                         = "${var.topic}-lake"
  topic                        = google_pubsub_topic.events.id
  ack_deadline_seconds         = 600
  message_retention_duration   = "604800s"
  enable_message_ordering      = true
  enable_exactly_once_delivery = false

  expiration_policy {
    ttl = "" # never
  }
}

# The producer writes to the topic and sees no bucket.
resource "google_pubsub_topic_iam_member" "producer" {
  topic  = google_pubsub_topic.events.name
  role   = "roles/pubsub.publisher"
  member = google_service_account.role["producer"].member
}

resource "google_pubsub_subscription_iam_member" "streaming" {
  for_each = toset(["roles/pubsub.subscriber", "roles/pubsub.viewer"])

  subscription = google_pubsub_subscription.lake.name
  role         = each.value
  member       = google_service_account.role["streaming"].member
}
