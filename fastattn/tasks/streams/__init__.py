"""What `bilm` and `language-model` share: streams of sentences, a loss that carries states, and perplexities."""
